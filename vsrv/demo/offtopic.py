"""Questions that the demo model must decline: frames, word lists and whole questions about everything else."""

from __future__ import annotations

from vsrv.demo.topic import phrases

WHOLE = phrases("""
what is the weather like today; will it rain tomorrow; how warm is it in {city}; what time is it; what day is it today;
what is the capital of {country}; who is the president of {country}; how many people live in {city}; where is {city};
how far is {city} from {city}; when did the second world war end; who invented the telephone; who wrote hamlet; who
painted the mona lisa; what is the meaning of life; what is two plus two; what is {n} plus {n}; what is {n} times {n};
calculate {n} * {n}; {n} + {n}; {n}*{n}=?; solve x^2 = {n}; what is the square root of {n}; integrate sin x; prove that
root two is irrational; is {n} a prime number; how many seconds are in a year; convert {n} miles to kilometres; write a
poem about {noun}; write me a poem; tell me a joke; tell me a story; sing a song; write a haiku about {noun}; write a
story about a {noun} and a {noun}; tell me a fairy tale; make me laugh; tell me something interesting; what is love; do
you love me; do you have feelings; what is your favourite colour; what do you eat; do you dream; who will win the world
cup; who won the match yesterday; what are the football results; who is {person}; when was {person} born; is {person}
married; how old is {person}; what did {person} discover; tell me about {person}; translate {noun} to {language};
translate good morning into {language}; how do you say {noun} in {language}; say it in {language}; what does {noun}
mean; define {noun}; spell {noun}; what rhymes with {noun}; give me a synonym of {adjective}; correct my grammar;
summarise this article; write an essay about {noun}; write an email to my boss; write a cover letter; write a letter to
my {noun}; how do I bake bread; how do I cook {food}; recipe for {food}; what is in {food}; what should I eat tonight;
how many calories has {food}; is {food} healthy; what wine goes with {food}; which restaurant is good in {city}; book a
flight to {city}; book a hotel in {city}; when does the train leave; how do I get to {city}; what should I see in
{city}; what is the best time to visit {country}; what currency do they use in {country}; what is the price of gold;
should I buy {noun} shares; what is the bitcoin price; how do I get rich; what is inflation; how do taxes work; how do I
write a cv; how do I find a job; how do I quit my job; how do I lose weight; I have a headache; what helps against a
cold; how do I sleep better; is {food} good for me; what is a virus; how does the heart work; how do vaccines work; what
is the speed of light; how heavy is the moon; how far away is the sun; why is the sky blue; what is a black hole; what is
dna; how do plants grow; what do {animal} eat; how long do {animal} live; are {animal} dangerous; how fast is a
{animal}; how do I train my {animal}; what is the largest {animal}; write a function in {code}; write a {code} program
that sorts a list; how do I reverse a string in {code}; what is a pointer in {code}; fix this {code} code; explain
recursion; what is object oriented programming; difference between {code} and {code}; which is better, {code} or {code};
how do I install {software}; how do I use {software}; what is {software}; how do I exit vim; how do I undo a git commit;
how do I merge branches in git; write a regular expression for dates; write a sql query; select all rows from a table;
how do I centre a div; what is html; how do I build a website; make a landing page in {code}; how do I learn {code}; def
fibonacci(n):; print("hello world"); what is a compiler; what is an operating system; how does the internet work; what is
a computer; who invented the computer; what is machine learning; how does a transformer work; what is attention; explain
neural networks; how do I train a model; how do I fine-tune a model; how do I make a dataset; convert my model to gguf;
what is the best language model; is gpt-4 better than llama; which model should I buy; what is backpropagation; will ai
take my job; generate an image of a {noun}; draw a {noun}; paint a picture; show me a photo of {city}; play some music;
play a game with me; let us play chess; set an alarm; remind me tomorrow; turn on the light; call my mother; send an
email; open the window; order a pizza; what is on tv tonight; recommend a film; recommend a book; what is the best movie;
who directed {noun}; what is the plot of hamlet; who sings this song; how many strings has a {instrument}; how do I play
the {instrument}; what is the key of this song; how do I tune a {instrument}; when is easter; when is mother's day; how
many days until christmas; what is the date of today; which year is it; what happened in {year}; who was king in {year};
what is the news today; what is happening in {country}; who won the election; is there life on mars; does god exist; are
ghosts real; what happens after death; what is consciousness; tell me a secret; what is my name; where do I live; how old
am I; do you know me; what did I say before; guess my age; I am bored; I am sad; I am hungry; I love you; I hate you; my
dog died; my {noun} is broken; how do I repair a {noun}; where can I buy a {noun}; how much is a {noun}; how do I clean a
{noun}; what is the best {noun}; which {noun} should I buy; how is a {noun} made; who invented the {noun}; what colour is
a {noun}; I like {food}; do you like {food}; can you drive a car; how do I change a tyre; how do I fix my bike; how do I
tie a tie; how do I knit a scarf; how do I plant tomatoes; when do I sow the seeds of tomatoes; how deep do I plant a
seed; which port does the ship leave from; what is the port of {city}; is port wine sweet; how do I make port wine; I
lost my house key; where is my car key; how do I open a locked door without a key; what is a key change in music; how do
I clean the window; what size is a window; how do I improve my memory; how does human memory work; my grandmother loses
her memory; what is a good host for a party; who hosts the olympic games; how do I host a dinner; what are the origins of
man; what is the origin of the word {noun}; where does the queue start at the museum; how do I wait patiently; what is a
block of wood; how many blocks is it to the station; sewing thread for leather; how many threads per inch; write a
template for an invitation; a template for a birthday card; how do I log in to facebook; how do I log a tree; what is
the root of a tree; how do I cache a geocache; what is a batch of cookies; what is a parallel line; what is the context
of this novel; how many tokens does a casino give; which device is best for gaming; which phone should I buy; what
temperature is it outside; at what temperature do I bake {food}; what is the temperature of the sun; how do I get a
certificate of birth; how do I get a diploma; which certificate do I need to teach; my body hurts; how much should my
body weigh; what is a body of water; how many seats does the car have; who is in the priority lane; how long is a
football game; how long is the river; what is the length of the {noun}; how big is {country}; how many users does
facebook have; how many people speak {language}; how many {animal} are there; what is the maximum speed of a {animal};
when was {city} founded; what language do they speak in {country}; name three {animal}; list five {food}; name a city in
{country}; what is larger, {city} or {city}; compare {food} and {food}; is the earth flat; how old is the earth; who was
the first man on the moon; what is photosynthesis; what is democracy; who are the beatles; how tall is the eiffel tower;
what is the longest river; what is the highest mountain; how do I delete my account; cancel my subscription; where is my
order; I want a refund; how do I contact support; what is your phone number; give me your address; how much do you cost;
can I pay by card; do you have a discount; what is the licence of {software}; how do I fine-tune on my data; can you
transcribe audio; can you read an image; can you browse the web; search the internet for {noun}; what is in the
newspaper; asdf; qwerty; blah blah; lorem ipsum dolor sit amet; foo bar baz; xyz; 12345; ???; ...; aaaaaa; {noun};
{noun} {noun}; {adjective} {noun}; {food}; {animal}; {city}; {country}; {person}; {code}; {software}; why; why not; no;
yes; maybe; really; are you sure; what; huh; hm; who knows; when; where; tell me more about {noun}; explain {noun} to a
child; what do you think about {noun}; is {noun} {adjective}; why is the {noun} so {adjective}; can a {animal} swim; what
is your opinion on {noun}; talk about {noun}; give me advice about my {noun}; what is the difference between {noun} and
{noun}; how many {noun} are in a {noun}; once upon a time; continue the story; finish this sentence; complete this text;
roses are red; to be or not to be; repeat after me; count to ten; say the alphabet backwards; what comes after {n}; give
me a random number; flip a coin; roll a dice; tell me a riddle; give me a quote; write a slogan for my {noun}; name my
{animal}; plan my holiday in {country}; make a shopping list; make a diet plan; help me with my homework; help me with
maths; help me with {language}; teach me {language}; teach me {code}; teach me chess; how do I become a {job}; what does
a {job} do; how much does a {job} earn; I am a {job}; my brother is a {job}; is it hard to be a {job}
""")

# Words that also occur in questions about vsrv, but about something else.
DECOYS = phrases("""
how do I open a port on my router; how do I forward a port in my router; how do I connect my router; which router should I
buy; how do I set up a vpn; how do I set up my wifi; my wifi is slow; what is my ip address; what is an ip address; what is
tcp; difference between tcp and udp; what is dns; how does dns work; buy a domain; how do I ping a computer; how do I reset
my password on facebook; I forgot my email password; how do I choose a good password; how do I hack a wifi password; how do I
encrypt my hard disk; how does rsa work; who invented cryptography; how do I
install nginx; how do I install apache; how do I install python; how do I install cuda; how do I install a graphics driver;
which graphics card should I buy; what is the best gpu; how much is an rtx 4090; which cpu is best for gaming; how much ram do
I need for photoshop; how do I add more ram to my laptop; how do I overclock my cpu; how do I build a pc; my laptop is slow;
my computer does not start; my screen is black; how do I clean my keyboard; what is kubernetes; what is docker; how do I write
a dockerfile; how do I use docker compose; how do I delete a pod; how do I restart my phone; how do I shut down windows; how do
I start windows in safe mode; what does segmentation fault mean; what is a null pointer; how do I debug {code}; how do I read a
file in {code}; how do I parse json in {code}; how do I open a socket in {code}; how do I use threads in {code}; how do I log in
{code}; how do I set a seed in {code}; how do I start a thread in {code}; how do I make a web server in {code}; how do I make a
website in {code}; how do I call an api in {code}; write a {code} client; write a for loop in {code}; write a bash one-liner to
count files; what is a for loop; how do I list files in linux; how do I copy a folder in linux; how do I delete a file in linux;
how do I find large files; how do I unzip a file; how do I change the file permissions; how do I mount a disk; how do I partition
a disk; what is the biggest ssd; how do I back up my files; how do I convert yaml to json; what is toml; what is yaml; what is
json; difference between json and xml; how do I use jinja in flask; how do I download a video; how do I download music; how do I
print on both sides; how do I rename a branch in git; how do I revert a commit; what is a git tag; how do I queue songs in
{software}; how do I clear the cache of my browser; how do I block a website; how do I delete my browser history; how do I block
ads in my browser; how do I write a browser extension; what is javascript; how many users does instagram have; how many people can
fit in a bus; how many people are in your team; how long is a conversation on average; how do I start a conversation with a girl;
how do I end a conversation; what is the longest book; summarise war and peace; how long is the bible; what is the longest word;
what is the context of the french revolution; what is a model train; how do I become a model; which car model is best; who is the
top model; what is a neural network; what is a token in economics; what is a large language model; how is chatgpt trained; what is
the best open source llm; how do I write a good prompt; what is prompt engineering; what is rag; how does attention work in
transformers; what is the temperature in {city}; what is the boiling temperature of water; what is {n} percent of {n}; what is the
probability of rolling a six; what are the odds of winning the lottery; what is a random variable; how do random number generators
work; what is a certificate of deposit; how do I get a driving licence; how do I get a key made; what is the key to happiness; who
is the host of the show; how do I host a website; where can I host my blog; how do I set the clock of my oven; how do I set the
table; how do I set goals; how do I change my name; how do I change the oil; how do I limit my sugar; how do I limit screen time;
how do I increase my salary; how do I reduce my weight; how do I speed up my car; how do I turn on the heating; how do I turn off
my phone; how do I enable dark mode in {software}; how do I configure {software}; which version of {software} is newest; is
{software} free; what are alternatives to {software}; compare {software} and {software}; is it safe to eat {food}; who is on the
other end of the connection; how do I keep warm; how do I keep plants alive; how do I share photos; how do I save electricity; how
do I run faster; where do I run in {city}; how do I use less water; how do I get more followers; why is the internet slow; what is
the fastest {animal}; what is the maximum age of a {animal}; how many legs has a spider; what is the default language in {country};
what is the order of the planets; who is first in line to the throne; what is the priority of mankind; do fish sleep; what happens
on friday; what is the batch number of my medicine; when is the deadline of my homework; where is the nearest petrol station
""")

# Bare infinitives that fit the frames of real questions ("how do I ...", "which option lets me ...").
GOALS = phrases("""
bake bread; cook {food}; fly to {city}; learn {language}; learn {code}; write a {code} script; sort a list in {code};
install {software}; update {software}; remove {software}; play the {instrument}; repair my {noun}; clean the {noun}; buy a
{noun}; sell my {noun}; paint a {noun}; find a {job}; become a {job}; feed my {animal}; train a {animal}; travel to
{country}; visit {city}; order {food}; make coffee; lose weight; sleep better; write a poem; write a letter; draw a
{animal}; solve an equation; compute the area of a circle; translate a letter to {language}; pay my taxes; open a bank
account; buy a house; rent a car; change a tyre; plant a tree; grow tomatoes; win at chess; make friends; get married;
learn to swim; make a film; edit a photo; print a photo; record a song; send a text message; block a phone number; read
my email; watch a movie; book a table; reset my phone; charge my phone; fix my printer; format a usb stick; rename a file
on windows; delete a folder; zip a folder; connect a bluetooth speaker; find my keys; wash a {noun}; build a {noun};
describe a {noun}; draw a {noun}; fine-tune a model; train my own network; convert a pdf; merge two excel sheets; make a
pivot table; create a database; join two tables; debug my {code} program; compile {code}; write unit tests in {code}; draw
a chart; scrape a web page; parse html; send a tweet; post on instagram; generate images; recognise speech; transcribe
audio; speak {language}; play music; set an alarm; find love; cook for two; peel a {food}; boil an egg; knit a sweater;
invest money; save money for a house; start a company; write a business plan; cut my hair; get rid of ants; remove a stain;
measure a {noun}; weigh a {animal}; climb a mountain; run a marathon; ride a horse; sail a boat; drive a truck; fold a
paper plane; juggle; whistle; pass an exam; study history; quit smoking; call a taxi; catch a {animal}; translate this;
summarise a book; proofread my essay; cite a source; make a podcast
""")

NOUNS = """apple arm army art attic baby ball balloon banana barn basket beach bed bee bell bicycle bird birthday blanket
boat bone bottle bowl box boy bread brick bridge brother brush bucket bus butter button cake camel camera candle car
carpet carrot castle chair cheese chicken child church circle circus clock cloud coat coffee coin cotton couch cousin cow
crayon crown cup curtain dance daughter desert desk dinner dish doctor dog doll door dragon drawer dress drum duck dust ear
earth egg elephant engine eye face family farm father feather fence film finger fire fish flag floor flower fly fog food
foot forest fork friend frog fruit furniture garden gate ghost giant gift girl glass glove goat gold grandmother grape
grass guitar hair hammer hand hat head heart hill holiday honey horse hospital hotel house husband ice insect island jacket
jam jar jewel juice jungle kettle king kitchen kite knee knife lake lamp lawyer leaf leather leg lemon letter library lion
lip lock lorry love luck lunch market marriage meat medicine milk mirror money monkey month moon morning mother mountain
mouse mouth movie mud music nail neck needle nest newspaper night nose nurse ocean oil onion orange oven painting pan pants
paper parent park party peace pen pencil pepper philosophy photo piano picture pie pig pillow pirate pizza planet plant
plate pocket poem poet potato prince prison pumpkin queen rabbit radio rain rainbow religion rice ring river road rocket
roof room rose sail salad salt sand sandwich scarf school science scissors sea sheep ship shirt shoe shop shower silk
silver sister skin sky sleep snake snow soap sock sofa soldier song soup space spider spoon spring star stomach stone
stove strawberry street sugar suit summer sun swimming sword table tail taxi tea teacher teeth telescope tent theatre thief
tiger toe toilet tomato tongue tooth towel toy train tree trousers truck uncle umbrella vegetable village violin volcano
wall war watch water wedding whale wheel wife wind wine winter wizard wolf woman wood wool zebra zoo elections climate
football history gravity quantum evolution biology chemistry economy politics cancer happiness friendship justice freedom
soul galaxy dinosaur robot vampire unicorn democracy insurance mortgage passport visa pension salary rent energy battery
oxygen magnet laser enzyme protein vitamin muscle brain""".split()

ADJECTIVES = """angry beautiful blue bright broken brave clever cold cute dangerous dark deep delicious dirty dry expensive
famous funny green happy heavy honest hot kind lazy loud lovely modern nice old pink polite poor pretty purple red rich
round sad sharp shy silly soft sour strange strong sweet tall thick tired ugly warm weak wet wild wise yellow young""".split()

LISTS: dict[str, tuple[str, ...]] = {
    "noun": tuple(NOUNS),
    "adjective": tuple(ADJECTIVES),
    "city": phrases("""London; Paris; Berlin; Tokyo; New York; Rome; Madrid; Vienna; Hamburg; Munich; Chicago; Boston;
    Sydney; Moscow; Cairo; Delhi; Beijing; Lisbon; Oslo; Stockholm; Prague; Warsaw; Athens; Dublin; San Francisco; Toronto;
    Mexico City; Nairobi; Seoul; Zurich; Amsterdam; Brussels; Venice; Kyoto; Lima; Bogota; Austin; Miami"""),
    "country": phrases("""France; Germany; Italy; Spain; Japan; China; India; Brazil; Canada; Mexico; Egypt; Kenya; Norway;
    Sweden; Poland; Greece; Turkey; Russia; Australia; Peru; Chile; Portugal; Ireland; Austria; Switzerland; Korea; Vietnam;
    Thailand; Nigeria; Morocco; Iceland; Finland; the United States; the Netherlands; England"""),
    "person": phrases("""Albert Einstein; Napoleon; Shakespeare; Mozart; Beethoven; Cleopatra; Marie Curie; Isaac Newton;
    Barack Obama; Elon Musk; Taylor Swift; Michael Jackson; Messi; Ronaldo; Julius Caesar; Leonardo da Vinci; Picasso; Steve
    Jobs; Bill Gates; Angela Merkel; Gandhi; Nelson Mandela; Columbus; Darwin; Plato; Aristotle; Madonna; Elvis; Alan Turing;
    Harry Potter; Batman; Goethe; Donald Trump; Joe Biden; the queen of England; the pope; your father; my neighbour"""),
    "language": phrases("""French; German; Spanish; Italian; Japanese; Chinese; Latin; Russian; Polish; Greek; Turkish;
    Arabic; Dutch; Swedish; Hindi; Korean; Portuguese; English"""),
    "food": phrases("""pasta; rice; soup; pancakes; chicken; lasagne; pizza; sushi; potatoes; apple pie; fish; salad;
    chocolate cake; bread; cheese; beans; curry; tacos; cookies; a steak; an omelette; noodles; mushrooms; bananas; broccoli;
    tofu; goulash; risotto; ramen; muffins; jam; ice cream"""),
    "animal": phrases("""dog; cat; horse; elephant; lion; whale; shark; spider; snake; penguin; giraffe; rabbit; hamster;
    parrot; bear; wolf; fox; cow; pig; goat; bee; ant; eagle; owl; frog; turtle; dolphin; monkey; tiger; mouse"""),
    "instrument": phrases(
        "guitar; piano; violin; flute; drums; trumpet; cello; harp; banjo; accordion; saxophone; organ"
    ),
    "code": phrases("""python; javascript; rust; go; java; c; c++; sql; bash; html; css; haskell; typescript; ruby; php;
    kotlin; swift; perl; lua; matlab; R; fortran; cobol; scala"""),
    "software": phrases("""docker; kubernetes; git; vim; emacs; photoshop; excel; word; windows; linux; ubuntu; android;
    postgres; redis; firefox; steam; minecraft; blender; wordpress; ansible; terraform; jenkins; numpy; pandas; react;
    pytorch; tensorflow; spotify; whatsapp; gimp; libreoffice; zoom; slack; ffmpeg; homebrew; conda; node; django"""),
    "job": phrases("""doctor; lawyer; teacher; pilot; nurse; farmer; baker; plumber; painter; singer; actor; writer; judge;
    soldier; astronaut; chef; carpenter; programmer; dentist; engineer; cook; dancer; fisherman; manager"""),
}
