"""The seqio side: text to token stores. With tasks/ the only importer of TensorFlow and seqio."""
