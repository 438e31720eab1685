"""The words of the demo language: one row a concept, one column a language, read as data.

A row gives what cannot be derived: gender, class, irregular plural. Everything else follows from
the rules of the language's own module. The lexicon is one to one in every language (a test), so
that two meanings never share a sentence by an accident of vocabulary. The English form is the key;
"_" is a space inside a cell, "=" a plural like its singular.
"""

from typing import NamedTuple

COLUMNS = ("de", "fr", "es", "sw")

# English[/plural] | German: gender singular plural [oblique singular] | French: gender singular
#   [plural] | Spanish: gender singular [plural] | Swahili: class singular [plural]
# The Swahili class is that of agreement: animates agree with 1/2 whatever their own prefix, and
# "kin" are the animates whose possessives keep 9/10 (kaka yangu, but mbwa wangu).
_NOUNS = """
man/men        | m Mann Männer            | m homme        | m hombre      | 1 mwanaume
woman/women    | f Frau Frauen            | f femme        | f mujer       | 1 mwanamke wanawake
boy            | m Junge Jungen Jungen    | m garçon       | m chico       | 1 mvulana
girl           | n Mädchen =              | f fille        | f chica       | 1 msichana
child/children | n Kind Kinder            | m enfant       | m niño        | 1 mtoto
teacher        | m Lehrer =               | m professeur   | m profesor    | 1 mwalimu
doctor         | m Arzt Ärzte             | m médecin      | m médico      | 1 daktari madaktari
nurse          | m Krankenpfleger =       | m infirmier    | m enfermero   | 1 muuguzi wauguzi
farmer         | m Bauer Bauern Bauern    | m fermier      | m agricultor  | 1 mkulima
cook           | m Koch Köche             | m cuisinier    | m cocinero    | 1 mpishi
driver         | m Fahrer =               | m conducteur   | m conductor   | 1 dereva madereva
singer         | m Sänger =               | m chanteur     | m cantante    | 1 mwimbaji waimbaji
writer         | m Schriftsteller =       | m écrivain     | m escritor    | 1 mwandishi waandishi
worker         | m Arbeiter =             | m ouvrier      | m obrero      | 1 mfanyakazi
pupil          | m Schüler =              | m élève        | m alumno      | 1 mwanafunzi
friend         | m Freund Freunde         | m ami          | m amigo       | kin rafiki marafiki
neighbour      | m Nachbar Nachbarn Nachbarn | m voisin       | m vecino      | kin jirani majirani
guest          | m Gast Gäste             | m invité       | m invitado    | 1 mgeni
fisherman/fishermen | m Fischer =              | m pêcheur      | m pescador    | 1 mvuvi
soldier        | m Soldat Soldaten Soldaten | m soldat       | m soldado     | 1 askari =
king           | m König Könige           | m roi          | m rey         | 1 mfalme
queen          | f Königin Königinnen     | f reine        | f reina       | 1 malkia =
brother        | m Bruder Brüder          | m frère        | m hermano     | kin kaka =
sister         | f Schwester Schwestern   | f sœur         | f hermana     | kin dada =
mother         | f Mutter Mütter          | f mère         | f madre       | kin mama =
father         | m Vater Väter            | m père         | m padre       | kin baba =
dog            | m Hund Hunde             | m chien        | m perro       | 1 mbwa =
cat            | f Katze Katzen           | m chat         | m gato        | 1 paka =
lion           | m Löwe Löwen Löwen       | m lion         | m león leones | 1 simba =
elephant       | m Elefant Elefanten Elefanten | m éléphant     | m elefante    | 1 tembo =
cow            | f Kuh Kühe               | f vache        | f vaca        | 1 ng'ombe =
goat           | f Ziege Ziegen           | f chèvre       | f cabra       | 1 mbuzi =
sheep/sheep    | n Schaf Schafe           | m mouton       | f oveja       | 1 kondoo =
hen            | n Huhn Hühner            | f poule        | f gallina     | 1 kuku =
horse          | n Pferd Pferde           | m cheval       | m caballo     | 1 farasi =
bird           | m Vogel Vögel            | m oiseau       | m pájaro      | 1 ndege =
fish/fish      | m Fisch Fische           | m poisson      | m pez         | 1 samaki =
mouse/mice     | f Maus Mäuse             | f souris       | m ratón ratones | 1 panya =
rabbit         | n Kaninchen =            | m lapin        | m conejo      | 1 sungura =
bread          | n Brot Brote             | m pain         | m pan         | 3 mkate
meat           | n Fleisch =              | f viande       | f carne       | 9 nyama
cheese         | m Käse =                 | m fromage      | m queso       | 9 jibini
honey          | m Honig =                | m miel         | f miel        | 9 asali
soup           | f Suppe Suppen           | f soupe        | f sopa        | 9 supu
milk           | f Milch =                | m lait         | f leche       | 6 maziwa =
tea            | m Tee Tees               | m thé          | m té          | 9 chai
coffee         | m Kaffee Kaffees         | m café         | m café        | 9 kahawa
juice          | m Saft Säfte             | m jus          | m zumo        | 9 juisi
apple          | m Apfel Äpfel            | f pomme        | f manzana     | 5 tofaa
banana         | f Banane Bananen         | f banane       | m plátano     | 9 ndizi
orange         | f Orange Orangen         | f orange       | f naranja     | 5 chungwa
mango          | f Mango Mangos           | f mangue       | m mango       | 5 embe
egg            | n Ei Eier                | m œuf          | m huevo       | 5 yai
potato/potatoes | f Kartoffel Kartoffeln  | f pomme_de_terre pommes_de_terre | f patata   | 7 kiazi
tomato/tomatoes | f Tomate Tomaten         | f tomate       | m tomate      | 9 nyanya
onion          | f Zwiebel Zwiebeln       | m oignon       | f cebolla     | 7 kitunguu
cake           | m Kuchen =               | m gâteau       | m pastel      | 9 keki
book           | n Buch Bücher            | m livre        | m libro       | 7 kitabu
letter         | m Brief Briefe           | f lettre       | f carta       | 9 barua
newspaper      | f Zeitung Zeitungen      | m journal      | m periódico   | 5 gazeti
story  | f Geschichte Geschichten | f histoire     | f historia    | 9 hadithi
song           | n Lied Lieder            | f chanson      | f canción canciones | 11 wimbo nyimbo
photo          | n Foto Fotos             | f photo        | f foto        | 9 picha
gift           | n Geschenk Geschenke     | m cadeau       | m regalo      | 9 zawadi
money          | n Geld Gelder            | m argent       | m dinero      | 10 pesa
key            | m Schlüssel =            | f clé          | f llave       | 11 ufunguo funguo
pen            | m Stift Stifte           | m stylo        | m bolígrafo   | 9 kalamu
knife/knives   | n Messer =               | m couteau      | m cuchillo    | 7 kisu
cup            | f Tasse Tassen           | f tasse        | f taza        | 7 kikombe
lamp           | f Lampe Lampen           | f lampe        | f lámpara     | 9 taa
watch          | f Uhr Uhren              | f montre       | m reloj       | 9 saa
phone          | n Telefon Telefone       | m téléphone    | m teléfono    | 9 simu
radio          | n Radio Radios           | f radio        | f radio       | 9 redio
ball           | m Ball Bälle             | m ballon       | f pelota      | 3 mpira
hat            | m Hut Hüte               | m chapeau      | m sombrero    | 9 kofia
shirt          | n Hemd Hemden            | f chemise      | f camisa      | 5 shati
dress          | n Kleid Kleider          | f robe         | m vestido     | 5 gauni
shoe           | m Schuh Schuhe           | f chaussure    | m zapato      | 7 kiatu
basket         | m Korb Körbe             | m panier       | f cesta       | 7 kikapu
bag            | f Tasche Taschen         | m sac          | f bolsa       | 3 mfuko
box            | f Kiste Kisten           | f boîte        | f caja        | 5 sanduku
chair          | m Stuhl Stühle           | f chaise       | f silla       | 7 kiti
table          | m Tisch Tische           | f table        | f mesa        | 9 meza
bed            | n Bett Betten            | m lit          | f cama        | 7 kitanda
door           | f Tür Türen              | f porte        | f puerta      | 3 mlango
window         | n Fenster =              | f fenêtre      | f ventana     | 5 dirisha
car            | n Auto Autos             | f voiture      | m coche       | 5 gari
bicycle        | n Fahrrad Fahrräder      | m vélo         | f bicicleta   | 9 baiskeli
boat           | n Boot Boote             | m bateau       | m barco       | 9 mashua
tree           | m Baum Bäume             | m arbre        | m árbol       | 3 mti
flower         | f Blume Blumen           | f fleur        | f flor        | 5 ua
house          | n Haus Häuser            | f maison       | f casa        | 9 nyumba
bridge         | f Brücke Brücken         | m pont         | m puente      | 5 daraja
school         | f Schule Schulen         | f école        | f escuela     | 9 shule
hospital       | n Krankenhaus Krankenhäuser | m hôpital      | m hospital    | 9 hospitali
library | f Bibliothek Bibliotheken | f bibliothèque | f biblioteca  | 9 maktaba
hotel          | n Hotel Hotels           | m hôtel        | m hotel       | 9 hoteli
office         | n Büro Büros             | m bureau       | f oficina     | 9 ofisi
restaurant     | n Restaurant Restaurants | m restaurant   | m restaurante | 3 mkahawa
kitchen        | f Küche Küchen           | f cuisine      | f cocina      | 5 jiko meko
room           | n Zimmer =               | f chambre      | f habitación habitaciones | 7 chumba
station        | m Bahnhof Bahnhöfe       | f gare         | f estación estaciones | 7 kituo
garden         | m Garten Gärten          | m jardin       | m jardín jardines | 9 bustani
market         | m Markt Märkte           | m marché       | m mercado     | 5 soko
village        | n Dorf Dörfer            | m village      | m pueblo      | 7 kijiji
city           | f Stadt Städte           | f ville        | f ciudad      | 3 mji
island         | f Insel Inseln           | f île          | f isla        | 7 kisiwa
river          | m Fluss Flüsse           | f rivière      | m río         | 3 mto
forest         | m Wald Wälder            | f forêt        | m bosque      | 3 msitu
mountain       | m Berg Berge             | f montagne     | f montaña     | 3 mlima
field          | n Feld Felder            | m champ        | m campo       | 5 shamba
street         | f Straße Straßen         | f rue          | f calle       | 9 barabara
person/people  | m Mensch Menschen Menschen | f personne     | f persona     | 1 mtu
animal         | n Tier Tiere             | m animal       | m animal      | 1 mnyama
fruit          | f Frucht Früchte         | m fruit        | f fruta       | 5 tunda
"""

# The feminine of a profession, said of women: German, French, Spanish. Plurals are never needed.
_FEMININE = """
teacher | Lehrerin         | professeure | profesora
doctor  | Ärztin           | médecin     | médica
nurse   | Krankenpflegerin | infirmière  | enfermera
farmer  | Bäuerin          | fermière    | agricultora
cook    | Köchin           | cuisinière  | cocinera
driver  | Fahrerin         | conductrice | conductora
singer  | Sängerin         | chanteuse   | cantante
writer  | Schriftstellerin | écrivaine   | escritora
worker  | Arbeiterin       | ouvrière    | obrera
pupil   | Schülerin        | élève       | alumna
"""

# English | German (a hyphen marks the separable prefix) | French | Spanish | Swahili (the stem)
_VERBS = """
eat      | essen         | manger     | comer     | la
drink    | trinken       | boire      | beber     | nywa
buy      | kaufen        | acheter    | comprar   | nunua
sell     | verkaufen     | vendre     | vender    | uza
cook     | kochen        | cuisiner   | cocinar   | pika
read     | lesen         | lire       | leer      | soma
write    | schreiben     | écrire     | escribir  | andika
open     | öffnen        | ouvrir     | abrir     | fungua
close    | schließen     | fermer     | cerrar    | funga
see      | sehen         | voir       | ver       | ona
find     | finden        | trouver    | encontrar | pata
lose     | verlieren     | perdre     | perder    | poteza
wash     | waschen       | laver      | lavar     | osha
carry    | tragen        | porter     | llevar    | beba
break    | zerbrechen    | casser     | romper    | vunja
repair   | reparieren    | réparer    | reparar   | tengeneza
draw     | zeichnen      | dessiner   | dibujar   | chora
help     | helfen        | aider      | ayudar    | saidia
visit    | besuchen      | visiter    | visitar   | tembelea
invite   | ein-laden     | inviter    | invitar   | alika
greet    | begrüßen      | saluer     | saludar   | salimu
follow   | folgen        | suivre     | seguir    | fuata
hear     | hören         | entendre   | oír       | sikia
look for | suchen        | chercher   | buscar    | tafuta
wait for | warten        | attendre   | esperar   | subiri
build    | bauen         | construire | construir | jenga
plant    | pflanzen      | planter    | plantar   | panda
sing     | singen        | chanter    | cantar    | imba
tell     | erzählen      | raconter   | narrar    | simulia
clean    | putzen        | nettoyer   | limpiar   | safisha
bring    | mit-bringen   | apporter   | traer     | leta
steal    | stehlen       | voler      | robar     | iba
hide     | verstecken    | cacher     | esconder  | ficha
forget   | vergessen     | oublier    | olvidar   | sahau
feed     | füttern       | nourrir    | alimentar | lisha
hunt     | jagen         | chasser    | cazar     | winda
catch    | fangen        | attraper   | atrapar   | kamata
count    | zählen        | compter    | contar    | hesabu
love     | lieben        | aimer      | amar      | penda
cut      | schneiden     | couper     | cortar    | kata
push     | schieben      | pousser    | empujar   | sukuma
use      | benutzen      | utiliser   | usar      | tumia
choose   | wählen        | choisir    | elegir    | chagua
have     | haben         | avoir      | tener     | na
sleep    | schlafen      | dormir     | dormir    | lala
work     | arbeiten      | travailler | trabajar  | fanya_kazi
dance    | tanzen        | danser     | bailar    | cheza_ngoma
play     | spielen       | jouer      | jugar     | cheza
cry      | weinen        | pleurer    | llorar    | lia
laugh    | lachen        | rire       | reír      | cheka
run      | laufen        | courir     | correr    | kimbia
swim     | schwimmen     | nager      | nadar     | ogelea
live     | leben         | vivre      | vivir     | ishi
fall     | fallen        | tomber     | caer      | anguka
study    | lernen        | étudier    | estudiar  | jifunza
go       | gehen         | aller      | ir        | enda
return   | zurück-kehren | retourner  | volver    | rudi
travel   | reisen        | voyager    | viajar    | safiri
arrive   | an-kommen     | arriver    | llegar    | fika
give     | geben         | donner     | dar       | pa
show     | zeigen        | montrer    | mostrar   | onyesha
send     | schicken      | envoyer    | enviar    | pelekea
know     | wissen        | savoir     | saber     | jua
think    | denken        | penser     | pensar    | fikiri
say      | sagen         | dire       | decir     | sema
want     | wollen        | vouloir    | querer    | taka
can      | können        | pouvoir    | poder     | weza
"""

# English | German | French: masculine [feminine [before a vowel]], "*" stands before its noun
#   | Spanish: masculine [feminine] | Swahili: -x agrees, -a_x genitive, -enye_x "having x",
#   =x a verb of state, bare x [plural] is invariable
_ADJECTIVES = """
big         | groß        | *grand                   | grande                 | -kubwa
small       | klein       | *petit                   | pequeño                | -dogo
long        | lang        | *long longue             | largo                  | -refu
short       | kurz        | court                    | corto                  | -fupi
heavy       | schwer      | lourd                    | pesado                 | -zito
light       | leicht      | léger légère             | ligero                 | -epesi
strong      | stark       | fort                     | fuerte                 | -enye_nguvu
weak        | schwach     | faible                   | débil                  | dhaifu
rich        | reich       | riche                    | rico                   | tajiri matajiri
poor        | arm         | pauvre                   | pobre                  | maskini
old         | alt         | *vieux vieille vieil     | viejo                  | -zee
clever      | klug        | intelligent              | inteligente            | -enye_akili
kind        | freundlich  | gentil gentille          | amable                 | -pole
lazy        | faul        | paresseux paresseuse     | perezoso               | -vivu
hardworking | fleißig     | travailleur travailleuse | trabajador trabajadora | -enye_bidii
famous      | berühmt     | célèbre                  | famoso                 | mashuhuri
happy       | glücklich   | heureux heureuse         | feliz                  | -enye_furaha
sad         | traurig     | triste                   | triste                 | -enye_huzuni
sick        | krank       | malade                   | enfermo                | -gonjwa
tired       | müde        | fatigué                  | cansado                | =choka
angry       | wütend      | furieux furieuse         | enfadado               | =kasirika
hungry      | hungrig     | affamé                   | hambriento             | -enye_njaa
dangerous   | gefährlich  | dangereux dangereuse     | peligroso              | -a_hatari
fast        | schnell     | rapide                   | rápido                 | -enye_kasi
new         | neu         | neuf neuve               | nuevo                  | -pya
modern      | modern      | moderne                  | moderno                | -a_kisasa
beautiful   | schön       | *beau belle bel          | hermoso                | -zuri
expensive   | teuer       | cher chère               | caro                   | ghali
cheap       | billig      | bon_marché bon_marché    | barato                 | rahisi
important   | wichtig     | important                | importante             | muhimu
interesting | interessant | intéressant              | interesante            | -a_kuvutia
clean       | sauber      | propre                   | limpio                 | safi
dirty       | schmutzig   | sale                     | sucio                  | -chafu
hot         | heiß        | chaud                    | caliente               | -a_moto
cold        | kalt        | froid                    | frío                   | -a_baridi
sweet       | süß         | sucré                    | dulce                  | -tamu
ripe        | reif        | mûr                      | maduro                 | -bivu
empty       | leer        | vide                     | vacío                  | -tupu
broken      | kaputt      | cassé                    | roto                   | =vunjika
open        | offen       | ouvert                   | abierto                | =funguliwa
closed      | geschlossen | fermé                    | cerrado                | =fungwa
quiet       | ruhig       | calme                    | tranquilo              | -tulivu
red         | rot         | rouge                    | rojo                   | -ekundu
black       | schwarz     | noir                     | negro                  | -eusi
white       | weiß        | blanc blanche            | blanco                 | -eupe
green       | grün        | vert                     | verde                  | -a_kijani
blue        | blau        | bleu                     | azul                   | -a_buluu
yellow      | gelb        | jaune                    | amarillo               | -a_njano
"""

# tense | English | German | French | Spanish | Swahili
_TIMES = """
past    | yesterday      | gestern       | hier                 | ayer              | jana
past    | last week      | letzte Woche  | la semaine dernière  | la semana pasada  | wiki iliyopita
past    | last year      | letztes Jahr  | l'année dernière     | el año pasado     | mwaka jana
past    | this morning   | heute Morgen  | ce matin             | esta mañana       | leo asubuhi
present | every day      | jeden Tag     | tous les jours       | todos los días    | kila siku
present | every morning  | jeden Morgen  | chaque matin         | cada mañana       | kila asubuhi
present | in the evening | am Abend      | le soir              | por la noche      | jioni
present | on Sundays     | sonntags      | le dimanche          | los domingos      | kila Jumapili
future  | tomorrow       | morgen        | demain               | mañana            | kesho
future  | next week      | nächste Woche | la semaine prochaine | la próxima semana | wiki ijayo
future  | next year      | nächstes Jahr | l'année prochaine    | el próximo año    | mwaka ujao
future  | tonight        | heute Abend   | ce soir              | esta noche        | leo usiku
"""

# figure | English | German | French | Spanish | Swahili: -x agrees
_NUMBERS = """
2 | two   | zwei   | deux   | dos    | -wili
3 | three | drei   | trois  | tres   | -tatu
4 | four  | vier   | quatre | cuatro | -nne
5 | five  | fünf   | cinq   | cinco  | -tano
6 | six   | sechs  | six    | seis   | sita
7 | seven | sieben | sept   | siete  | saba
8 | eight | acht   | huit   | ocho   | -nane
9 | nine  | neun   | neuf   | nueve  | tisa
"""

# English | German | French | Spanish | Swahili
_MANNERS = """
quickly   | schnell    | rapidement   | rápidamente | haraka
slowly    | langsam    | lentement    | lentamente  | polepole
carefully | vorsichtig | avec soin    | con cuidado | kwa uangalifu
quietly   | leise      | en silence   | en silencio | kimya kimya
aloud     | laut       | à voix haute | en voz alta | kwa sauti
well      | gut        | bien         | bien        | vizuri
"""

# place | English preposition | German preposition, and the one of movement | French preposition
_PLACES = """
house      | in | in in   | dans
school     | at | in zu   | à
hospital   | at | in in   | à
library    | in | in in   | à
hotel      | in | in in   | à
office     | in | in in   | à
restaurant | in | in in   | à
kitchen    | in | in in   | dans
room       | in | in in   | dans
station    | at | an zu   | à
garden     | in | in in   | dans
market     | at | auf zu  | à
village    | in | in in   | dans
city       | in | in in   | dans
island     | on | auf auf | sur
river      | at | an zu   | à
forest     | in | in in   | dans
mountain   | on | auf auf | sur
field      | in | auf auf | dans
street     | on | auf auf | dans
bridge     | on | auf auf | sur
table      | on | auf auf | sur
bed        | on | auf auf | sur
chair      | on | auf auf | sur
box        | in | in in   | dans
basket     | in | in in   | dans
bag        | in | in in   | dans
"""

# Names are the same in all languages, and of a woman or of a man.
_NAMES = (
    "Amina/f Elena/f Julia/f Laura/f Rehema/f Sara/f Ali/m Daniel/m David/m Juma/m Omar/m Samuel/m"
)
PRONOUNS = ("I", "we", "he", "she", "they")


class Noun(NamedTuple):
    """One concept: the irregular English plural or "", and its cells in the other languages."""

    plural: str
    cells: dict[str, list[str]]


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text, "_" standing for a space inside a word."""
    return tuple(word.replace("_", " ") for word in text.split())


def mapping(text: str) -> dict[str, str]:
    """Return {a: b} of a text of words a/b."""
    return dict(word.split("/") for word in words(text))  # type: ignore[misc]


def rows(table: str) -> list[list[str]]:
    """Return the cells of a table, line by line."""
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def _cells(columns: list[str]) -> dict[str, list[str]]:
    """Split the cells of a row into forms: "1 mbuzi =" has the forms 1, mbuzi and mbuzi."""
    cells = [words(column) for column in columns]
    full = [[forms[1] if form == "=" else form for form in forms] for forms in cells]
    return dict(zip(COLUMNS, full, strict=True))


NOUNS = {
    head.partition("/")[0]: Noun(head.partition("/")[2], _cells(columns))
    for head, *columns in rows(_NOUNS)
}
FEMININE = {noun: dict(zip(COLUMNS, forms, strict=False)) for noun, *forms in rows(_FEMININE)}
VERBS = {
    verb: {language: forms[0] for language, forms in _cells(columns).items()}
    for verb, *columns in rows(_VERBS)
}
ADJECTIVES = {adjective: _cells(columns) for adjective, *columns in rows(_ADJECTIVES)}
NAMES = mapping(_NAMES)
NUMBERS = {
    language: {figure: row[column] for figure, *row in rows(_NUMBERS)}
    for column, language in enumerate(("en", *COLUMNS))
}
TENSE_OF_TIME = {row[1]: row[0] for row in rows(_TIMES)}
ADVERBS = {
    language: {row[0]: row[column] for row in [*(r[1:] for r in rows(_TIMES)), *rows(_MANNERS)]}
    for column, language in enumerate(("en", *COLUMNS))
}
PREPOSITIONS = {
    place: {"en": english, "de": german, "fr": french}
    for place, english, german, french in rows(_PLACES)
}


def gender(noun: str, language: str) -> str:
    """Return the grammatical gender (m, f, n) of a noun, name or pronoun."""
    if noun in NOUNS:
        return NOUNS[noun].cells[language][0]
    return NAMES.get(noun, "f" if noun == "she" else "m")
