LANGUAGES = ("de", "en", "es", "fr", "sw")
