"""Word groups that may stand for one another in a question, and small words that may be left out."""

from __future__ import annotations

import re

# Each line: expressions of one meaning. Any may replace any other of its line.
GROUPS_TEXT = """
change|set|modify|adjust|alter|configure|define|specify|choose|tweak|customise|control|tune|update
limit|cap|restrict|bound|constrain|put a limit on|curb
increase|raise|bump|enlarge|grow|extend|boost|scale up|turn up|crank up
decrease|lower|reduce|shrink|lessen|cut|turn down|diminish|scale down
users|clients|people|callers|customers|consumers|visitors|employees|colleagues|students|developers|testers|\
folks|persons|analysts|engineers|agents|team members|kids|guys|coworkers|workers|scientists|researchers|participants
server|service|daemon|vsrv|instance|backend|program|process|api|application|endpoint
requests|calls|queries|prompts|jobs|questions
request|call|query
conversations|chats|dialogues|discussions|sessions|talks
conversation|chat|dialogue|discussion|session|talk
turn on|enable|activate|switch on|use|have|get|set up
turn off|disable|deactivate|switch off|get rid of|stop|avoid|remove
allow|permit|let|authorise|enable
reject|refuse|deny|block|forbid|turn away|turn down|decline
show|print|display|output|see|view
folder|directory|path|location|place|dir
big|large|huge|long|great|enormous|massive
bigger|larger|longer|greater|more
small|tiny|short|little
option|flag|parameter|setting|switch|argument|knob|command line option
want|need|would like|wish|have|am trying|must|intend
machine|computer|pc|box|workstation|laptop|node
gpu|graphics card|video card|nvidia card|cuda card|accelerator
vram|gpu memory|video memory|graphics memory|gpu ram|device memory
ram|memory|main memory
simultaneously|concurrently|at the same time|in parallel|at once|together|all at once|side by side
simultaneous|concurrent|parallel
start|launch|run|boot|fire up|bring up
stop|quit|exit|shut down|terminate|kill|end
password|secret|credential|passphrase|token|key
website|web site|web page|web app|site|page|homepage|webapp|frontend
https|tls|ssl|encryption|secure http
certificate|cert|x509 certificate|tls certificate|ssl certificate
several|multiple|many|a couple of|more than one|various
maximum|max|highest|upper limit of|largest|top
fast|quick|rapid|speedy
slow|sluggish|laggy
faster|quicker|speedier
answer|reply|response|output
answers|replies|responses|outputs
model|llm|language model|neural network
logs|log|log output|log messages|logging
file|document
number|count|amount|quantity
how many|what number of|the number of
another|a different|some other|a second|an alternative
cannot|can't|can not|am unable to|am not able to|fail to
outside|the outside|elsewhere|other networks|the internet
network|lan|intranet|local network|subnet
seconds|secs|s
gigabytes|GB|gigs|GiB|gb
version|release|variant
wait|queue|stand in line|hang
text|prompt|input
random|arbitrary|unpredictable
same|identical|equal
default|standard|preset
name|title|label
connect to|reach|access|talk to|contact
connection|link|session
connections|links|sessions|sockets
reuse|share|recycle|use again
full|exhausted|used up|at its limit
complains|grumbles|says no|moans
cores|processors|cpus|cpu cores
only|just|solely|merely|exclusively
does not|doesn't|won't|will not
do not|don't
is not|isn't|ain't
gets|becomes|is getting
use|employ|utilise|work with|make use of
keep|retain|hold|preserve
prevent|avoid|stop|keep from
protect|secure|guard|safeguard|lock down|shield
browser|chrome|firefox|safari|web browser
save|store|keep|put
download|fetch|pull
documents|texts|articles|files|books|papers|transcripts|reports
document|text|article|book|paper|transcript|report
precision|accuracy|number format
reproducible|repeatable|deterministic
forgets|loses|no longer knows|does not remember|no longer recalls|drops
noisy|chatty|verbose|talkative|loud
emit|write|produce|generate|print
write|put|store|save
strangers|outsiders|freeloaders|random people|intruders|unknown people|third parties|bots|hackers|others|anyone
grabs|eats|takes|hogs|consumes|occupies|uses up|swallows|devours
crashes|dies|falls over|blows up|fails|breaks|aborts
needs|requires|demands|insists on|expects|asks for|wants
give|pass|supply|provide|hand over|tell
expose|publish|offer|serve|make available|open up
check|verify|validate|inspect|examine
begin|start
idle|inactive|silent|unused|quiet|dormant
finish|complete|end|wrap up|conclude
cut off|truncated|interrupted|aborted|lost|dropped|broken off
every|each|all
disk|drive|ssd|volume|partition|hard disk|hdd
split|spread|distribute|divide|break up
bot|assistant|ai|chatbot|model
restart|reboot|redeploy|deploy|update|upgrade
reverse proxy|proxy|gateway|load balancer|nginx|haproxy|traefik|caddy|apache
team|group|class|department|family|company|office
encrypt|secure|protect
demand|require|ask for|insist on|enforce
too many|so many|an enormous number of|tons of|lots of
too long|too big|too large|oversized
too small|too little|not enough|insufficient
slots|seats|places
pages|paragraphs|chapters
fix|repair|solve|resolve|cure
find|locate|look up
ugly|strange|weird|odd|awkward
hidden|secret|private
friends|buddies|mates|acquaintances
my server|the server|it|vsrv|this thing|our server|my instance
exactly|precisely|specifically
sends|posts|submits|uploads
long|lengthy|extensive
computed|calculated|processed|evaluated
again and again|every time|repeatedly|over and over|each time
laptop|notebook|desktop|mac|pc
weights|checkpoint|parameters|model files
hub|hugging face|huggingface|hf hub
kubernetes|k8s|docker|podman
important|urgent|critical|privileged
output|result|text|reply
creative|wild|inventive|varied
probabilities|likelihoods|scores
thinking|reasoning|thoughts
make|create|generate|produce|issue
embeddings|vectors|text embeddings
tool calling|function calling|tool use|tool calls
tools|functions
terminal|shell|console|command line
customer|tenant
customers|tenants
hangs|is stuck|freezes|stalls|stands still
timeout|time limit|time-out
benchmark|performance test|load test
renewed|replaced|new
install|set up|prepare
air gapped|offline
error|failure|problem|issue
in use|taken|occupied|busy|already used|blocked by something else
"""

STOPWORDS = frozenset(
    """a an the i my me we our us you your it its is are was be am do does did can could would should will to of in on
    at by for with from and or but so that this these those there here how what which where when why who please if then
    than as have has had want need like get make let some any want's""".split()
)
DROPPABLE = frozenset("a an the my our its is are do does to of please i it me that for".split())

GROUPS: tuple[tuple[str, ...], ...] = tuple(
    tuple(line.split("|")) for line in GROUPS_TEXT.strip().splitlines()
)
MEMBERS: dict[str, tuple[int, ...]] = {}
for _index, _group in enumerate(GROUPS):
    for _member in _group:
        MEMBERS[_member] = (*MEMBERS.get(_member, ()), _index)
PATTERN = re.compile(
    r"(?<![\w-])(" + "|".join(re.escape(m) for m in sorted(MEMBERS, key=len, reverse=True)) + r")(?![\w-])"
)
