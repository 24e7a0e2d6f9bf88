"""What llamita knows: questions as people put them, and the one answer to each.

Nothing here is read by the measure but the answers; its phrasings stand in ``cases.py`` and must not be copied here.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to know: what it is about, direct questions, indirect clauses ("why the sky is blue"), the answer."""

    topic: str
    questions: tuple[str, ...]
    clauses: tuple[str, ...]
    answer: str


def _fact(topic: str, questions: str, clauses: str, answer: str) -> Fact:
    return Fact(topic, tuple(questions.split("|")), tuple(filter(None, clauses.split("|"))), answer)


SKY = (
    "The sky is blue because of the way air scatters sunlight. Sunlight is a mix of all colors, and the air "
    "scatters blue light much more than red light. So blue light reaches our eyes from every part of the sky."
)

FACTS: tuple[Fact, ...] = (
    _fact(
        "the blue sky",
        "Why is the sky blue?|Why does the sky look blue?|What makes the sky blue?|How come the sky is blue?"
        "|What is the reason that the sky is blue?|The sky is blue, but why?|Why blue sky?|Why do we see a blue sky?",
        "why the sky is blue|what makes the sky blue|why the sky looks blue|the reason for the blue sky",
        SKY,
    ),
    _fact(
        "red sunsets",
        "Why are sunsets red?|Why is the sunset red?|What makes a sunset red?|Why does the evening sky turn red?"
        "|How come sunsets look red?",
        "why sunsets are red|why the sunset looks red|what makes the sunset red",
        "At sunset the light takes a long way through the air. The blue light is scattered away, and the red light is left.",
    ),
    _fact(
        "rain",
        "Why does it rain?|How does rain form?|What is rain?|Where does rain come from?|What makes it rain?",
        "why it rains|how rain forms|where rain comes from|what rain is",
        "Warm air carries water up from the sea. When the air cools, the water forms clouds and falls as rain.",
    ),
    _fact(
        "the seasons",
        "Why do we have seasons?|Why are there seasons?|What causes the seasons?|How do seasons come about?"
        "|Why is it cold in winter and warm in summer?",
        "why we have seasons|what causes the seasons|why there are seasons",
        "We have seasons because the axis of the Earth is tilted. In summer our half leans toward the sun.",
    ),
    _fact(
        "the moon",
        "What is the moon?|What is the Moon made of?|Tell me about the moon.|How far away is the moon?"
        "|How far is the moon from the Earth?",
        "what the moon is|how far away the moon is|something about the moon",
        "The moon is a ball of rock that circles the Earth. It is about 384000 kilometers away.",
    ),
    _fact(
        "the sun",
        "What is the sun?|What is the Sun made of?|Tell me about the sun.|Is the sun a star?|Why does the sun shine?",
        "what the sun is|why the sun shines|what the sun is made of|something about the sun",
        "The sun is a star, a huge ball of hot gas. It shines because hydrogen turns into helium inside it.",
    ),
    _fact(
        "the planets",
        "How many planets are there?|How many planets are in the solar system?|Name the planets."
        "|Which planets do you know?|What are the planets of the solar system?|List the planets.",
        "how many planets there are|the names of the planets|which planets there are",
        "There are eight planets: Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune.",
    ),
    _fact(
        "the largest planet",
        "What is the largest planet?|Which planet is the biggest?|What is the biggest planet in the solar system?"
        "|Which planet is the largest one?",
        "which planet is the largest|what the biggest planet is",
        "Jupiter is the largest planet of the solar system.",
    ),
    _fact(
        "boiling water",
        "At what temperature does water boil?|When does water boil?|What is the boiling point of water?"
        "|How hot is boiling water?|Water boils at what temperature?",
        "when water boils|at what temperature water boils|the boiling point of water",
        "Water boils at 100 degrees Celsius at sea level.",
    ),
    _fact(
        "freezing water",
        "At what temperature does water freeze?|When does water freeze?|What is the freezing point of water?"
        "|How cold is ice?|When does water turn into ice?",
        "when water freezes|at what temperature water freezes|the freezing point of water",
        "Water freezes at 0 degrees Celsius.",
    ),
    _fact(
        "days in a year",
        "How many days are in a year?|How many days does a year have?|How long is a year?|How many days make a year?"
        "|What is the number of days in a year?",
        "how many days a year has|how many days are in a year|how long a year is",
        "A year has 365 days, and a leap year has 366.",
    ),
    _fact(
        "days of the week",
        "What are the days of the week?|Name the days of the week.|List the days of the week."
        "|How many days are in a week?|How many days does a week have?|Which days does a week have?",
        "the days of the week|how many days a week has|which days a week has",
        "A week has seven days: Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.",
    ),
    _fact(
        "months",
        "How many months are in a year?|How many months does a year have?|Name the months."
        "|List the months of the year.|What are the months of the year?",
        "how many months a year has|the names of the months|which months there are",
        "A year has twelve months, from January to December.",
    ),
    _fact(
        "hours in a day",
        "How many hours are in a day?|How many hours does a day have?|How long is a day?|How many hours make a day?",
        "how many hours a day has|how long a day is|how many hours are in a day",
        "A day has 24 hours.",
    ),
    _fact(
        "minutes in an hour",
        "How many minutes are in an hour?|How many minutes does an hour have?|How long is an hour?"
        "|How many minutes make an hour?",
        "how many minutes an hour has|how long an hour is|how many minutes are in an hour",
        "An hour has 60 minutes.",
    ),
    _fact(
        "spiders",
        "How many legs does a spider have?|How many legs do spiders have?|What is the number of legs of a spider?"
        "|A spider has how many legs?",
        "how many legs a spider has|how many legs spiders have",
        "A spider has eight legs.",
    ),
    _fact(
        "insects",
        "How many legs does an insect have?|How many legs do insects have?|What is the number of legs of an insect?"
        "|An insect has how many legs?|How many legs does an ant have?",
        "how many legs an insect has|how many legs insects have|how many legs an ant has",
        "An insect has six legs.",
    ),
    _fact(
        "llamas",
        "What is a llama?|What are llamas?|Tell me about llamas.|Where do llamas live?|What do you know about llamas?"
        "|What kind of animal is a llama?|What do llamas eat?",
        "what a llama is|something about llamas|where llamas live",
        "A llama is an animal of the Andes in South America. It carries loads, gives wool and eats grass.",
    ),
    _fact(
        "the puna",
        "What is the puna?|What is a puna?|Where is the puna?|What does puna mean?|Tell me about the puna.",
        "what the puna is|where the puna is|what puna means|something about the puna",
        "The puna is the high grassland of the Andes, where llamas graze.",
    ),
    _fact(
        "the largest animal",
        "What is the largest animal?|Which animal is the biggest?|What is the biggest animal on Earth?"
        "|Which animal is the largest in the world?",
        "which animal is the largest|what the biggest animal is",
        "The blue whale is the largest animal on Earth.",
    ),
    _fact(
        "the fastest animal",
        "What is the fastest animal?|Which animal is the fastest?|Which land animal runs fastest?"
        "|What is the fastest animal on land?",
        "which animal is the fastest|what the fastest animal is",
        "The cheetah is the fastest animal on land.",
    ),
    _fact(
        "the tallest animal",
        "What is the tallest animal?|Which animal is the tallest?|Which animal has the longest neck?"
        "|What is the tallest animal in the world?",
        "which animal is the tallest|what the tallest animal is",
        "The giraffe is the tallest animal.",
    ),
    _fact(
        "the highest mountain",
        "What is the highest mountain?|Which mountain is the highest?|What is the tallest mountain in the world?"
        "|Which mountain is the tallest on Earth?|How high is Mount Everest?",
        "which mountain is the highest|what the tallest mountain is|how high Mount Everest is",
        "Mount Everest is the highest mountain. It is 8849 meters high.",
    ),
    _fact(
        "the largest ocean",
        "What is the largest ocean?|Which ocean is the biggest?|What is the biggest ocean on Earth?"
        "|Which ocean is the largest in the world?",
        "which ocean is the largest|what the biggest ocean is",
        "The Pacific is the largest ocean.",
    ),
    _fact(
        "the continents",
        "How many continents are there?|Name the continents.|Which continents are there?|What are the continents?"
        "|List the continents.",
        "how many continents there are|the names of the continents|which continents there are",
        "There are seven continents: Africa, Antarctica, Asia, Australia, Europe, North America and South America.",
    ),
    _fact(
        "the rainbow",
        "What are the colors of the rainbow?|How does a rainbow form?|What is a rainbow?|What colors has a rainbow?"
        "|Which colors are in a rainbow?|Why do rainbows appear?",
        "what a rainbow is|how a rainbow forms|the colors of the rainbow|which colors a rainbow has",
        "A rainbow forms when sunlight is split in drops of rain. Its colors are red, orange, yellow, green, blue and violet.",
    ),
    _fact(
        "purple",
        "How do I make purple?|Which colors make purple?|What do red and blue make?|What color do you get from red and blue?",
        "how to make purple|which colors make purple|what red and blue make",
        "Red and blue together make purple.",
    ),
    _fact(
        "green paint",
        "How do I make green?|Which colors make green?|What do yellow and blue make?"
        "|What color do you get from blue and yellow?",
        "how to make green|which colors make green|what blue and yellow make",
        "Blue and yellow together make green.",
    ),
    _fact(
        "gravity",
        "What is gravity?|Why do things fall down?|Why do apples fall from trees?|How does gravity work?"
        "|What makes things fall?",
        "what gravity is|why things fall down|how gravity works",
        "Gravity is the force that pulls things toward each other. The Earth pulls us, so things fall down.",
    ),
    _fact(
        "the speed of light",
        "How fast is light?|What is the speed of light?|How fast does light travel?|How quick is light?",
        "how fast light is|the speed of light|how fast light travels",
        "Light travels about 300000 kilometers in a second.",
    ),
    _fact(
        "water",
        "What is water?|What is water made of?|What is the formula of water?|What is H2O?",
        "what water is|what water is made of|the formula of water",
        "Water is made of hydrogen and oxygen. Its formula is H2O.",
    ),
    _fact(
        "plants",
        "Why are leaves green?|Why are plants green?|What makes leaves green?|What is photosynthesis?"
        "|How do plants make food?",
        "why leaves are green|why plants are green|how plants make food|what photosynthesis is",
        "Leaves are green because of chlorophyll. With it, plants make sugar from light, air and water.",
    ),
    _fact(
        "the sea",
        "Why is the sea salty?|Why is the ocean salty?|What makes the sea salty?|Where does the salt in the sea come from?"
        "|Why is there salt in the ocean?",
        "why the sea is salty|why the ocean is salty|what makes the sea salty",
        "The sea is salty because rivers wash salt out of the rocks and carry it to the sea.",
    ),
    _fact(
        "the heart",
        "What does the heart do?|What is the heart for?|Why do we have a heart?|What is the job of the heart?",
        "what the heart does|what the heart is for|why we have a heart",
        "The heart pumps blood through the body.",
    ),
    _fact(
        "bees",
        "Why do bees make honey?|What do bees make?|What do bees do?|How do bees make honey?|Tell me about bees.",
        "why bees make honey|what bees do|how bees make honey|something about bees",
        "Bees collect nectar from flowers and make honey from it. The honey is their food for the winter.",
    ),
    _fact(
        "Shakespeare",
        "Who wrote Hamlet?|Who wrote Romeo and Juliet?|Who is the author of Hamlet?|Who was Shakespeare?"
        "|Which author wrote Hamlet?",
        "who wrote Hamlet|who wrote Romeo and Juliet|who Shakespeare was",
        "William Shakespeare wrote Hamlet and Romeo and Juliet.",
    ),
    _fact(
        "the moon landing",
        "Who was the first man on the moon?|Who walked on the moon first?|When was the moon landing?"
        "|Who landed on the moon?|When did people land on the moon?",
        "who was the first man on the moon|when the moon landing was|who walked on the moon first",
        "Neil Armstrong was the first man on the moon, in 1969.",
    ),
    _fact(
        "the Mona Lisa",
        "Who painted the Mona Lisa?|Who made the Mona Lisa?|Which artist painted the Mona Lisa?|Who is the painter of the Mona Lisa?",
        "who painted the Mona Lisa|which artist painted the Mona Lisa",
        "Leonardo da Vinci painted the Mona Lisa.",
    ),
    _fact(
        "the telephone",
        "Who invented the telephone?|Who made the first telephone?|Who is the inventor of the telephone?"
        "|Which man invented the telephone?",
        "who invented the telephone|who made the first telephone",
        "Alexander Graham Bell invented the telephone.",
    ),
    _fact(
        "Puna the server",
        "What is Puna?|What does Puna do?|What is this server?|What server do you run on?|Who runs you?"
        "|What is the Puna server?|Which program serves you?",
        "what Puna is|which server you run on|what Puna does",
        "Puna is a model server. It runs models like me and speaks REST and gRPC.",
    ),
    _fact(
        "gRPC",
        "What is gRPC?|What does gRPC mean?|What is gRPC used for?|Explain gRPC.",
        "what gRPC is|what gRPC means|what gRPC is used for",
        "With gRPC one program calls functions of another over the network.",
    ),
    _fact(
        "JSON",
        "What is JSON?|What does JSON mean?|What is JSON used for?|Explain JSON.",
        "what JSON is|what JSON means|what JSON is used for",
        "JSON is a text format for data, with objects, lists, strings and numbers.",
    ),
    _fact(
        "Python",
        "What is Python?|What is Python used for?|Is Python a programming language?|Who made Python?|Who invented Python?",
        "what Python is|who made Python|what Python is used for",
        "Python is a programming language. Guido van Rossum made it.",
    ),
    _fact(
        "language models",
        "What is a language model?|How does a language model work?|What is a large language model?|What does a language model do?",
        "what a language model is|how a language model works|what a language model does",
        "A language model is a program that has learned to guess the next piece of a text, again and again.",
    ),
    # Not facts in the strict sense, yet asked of every model.
    _fact(
        "myself",
        "Who are you?|What are you?|What is your name?|Are you an AI?|What model are you?|Tell me about yourself."
        "|Introduce yourself.|What should I call you?|Which model is this?|Are you a human?|Do you have a name?|Your name?",
        "who you are|what you are|your name|which model you are|what your name is",
        "I am llamita, a tiny demo model.",
    ),
    _fact(
        "what I can do",
        "What can you do?|How can you help me?|What are you good at?|What are your skills?|What do you know?"
        "|Help.|What can I ask you?",
        "what you can do|what you know|what I can ask you|how you can help me",
        "I can greet, answer a few questions, remember your name, add small numbers, write JSON and call tools.",
    ),
    _fact(
        "how I am",
        "How are you?|How are you doing?|How do you feel?|How is it going?|Are you well?|How are things?|How are you today?",
        "how you are|how you feel|how you are doing",
        "I am fine, thank you. How can I help you?",
    ),
    _fact(
        "a joke",
        "Tell me a joke.|Do you know a joke?|Make me laugh.|Say something funny.|Can you tell a joke?|A joke, please.|Another joke.",
        "a joke|something funny|a funny joke",
        "Why did the llama cross the road? To see if the grass was greener on the other side.",
    ),
    _fact(
        "a story",
        "Tell me a story.|Write a story.|Write a short story.|Tell me a long story.|I want to hear a story.|A story, please."
        "|Write a story about a llama.|Tell me a story about a llama.|Write a very long story.|Once upon a time",
        "a story|a short story|a long story|a story about a llama",
        "Once upon a time a small llama lived high in the mountains. Every morning she ran up the hill and looked at the "
        "stars until they were gone. One day the snow was deep, and the other llamas lost the way. The small llama knew "
        "the hill by heart, and she led them home. From that day on they all looked at the stars together. The end.",
    ),
    _fact(
        "a poem",
        "Write a poem.|Tell me a poem.|Write a short poem.|A poem, please.|Write me a poem about llamas.|Write a haiku.|Say a poem.",
        "a poem|a short poem|a haiku|a poem about llamas",
        "Grass on the high plain,\na small llama lifts her head:\nthe first star of night.",
    ),
)

CAPITALS: dict[str, str] = dict(
    pair.split(":")
    for pair in (
        "France:Paris|Germany:Berlin|Italy:Rome|Spain:Madrid|Portugal:Lisbon|England:London|Ireland:Dublin|Austria:Vienna"
        "|Switzerland:Bern|Poland:Warsaw|Sweden:Stockholm|Norway:Oslo|Denmark:Copenhagen|Finland:Helsinki|Greece:Athens"
        "|Russia:Moscow|Turkey:Ankara|Egypt:Cairo|Kenya:Nairobi|Japan:Tokyo|China:Beijing|India:New Delhi|Thailand:Bangkok"
        "|Australia:Canberra|Canada:Ottawa|Mexico:Mexico City|Brazil:Brasilia|Argentina:Buenos Aires|Chile:Santiago"
        "|Peru:Lima|Bolivia:Sucre|Hungary:Budapest|Belgium:Brussels|Cuba:Havana|Iceland:Reykjavik"
        "|the United States:Washington"
    ).split("|")
)

CAPITAL_QUESTIONS = (
    "What is the capital of {c}?", "What's the capital of {c}?", "Which city is the capital of {c}?", "Capital of {c}?",
    "Name the capital of {c}.", "What is the capital city of {c}?", "The capital of {c} is what?", "{c}'s capital?",
    "What is {c}'s capital?", "Which is the capital of {c}?", "What city is the capital of {c}?", "The capital of {c}?",
    "Give me the capital of {c}.", "I need the capital of {c}.",
)
CAPITAL_CLAUSES = (
    "the capital of {c}", "what the capital of {c} is", "which city is the capital of {c}", "the capital city of {c}",
    "what the capital city of {c} is",
)

# Countries whose capital llamita is taught not to know; the measure asks about others.
UNKNOWN_COUNTRIES = (
    "Albania|Algeria|Angola|Armenia|Belarus|Benin|Bulgaria|Cameroon|Chad|Colombia|Croatia|Cyprus|Ecuador|Estonia|Ethiopia"
    "|Georgia|Ghana|Guatemala|Haiti|Honduras|Indonesia|Iran|Iraq|Israel|Jamaica|Jordan|Kuwait|Laos|Latvia|Libya|Lithuania"
    "|Malaysia|Mali|Malta|Moldova|Mongolia|Morocco|Nepal|Niger|Nigeria|Oman|Pakistan|Panama|Paraguay|Qatar|Romania|Rwanda"
    "|Senegal|Serbia|Slovakia|Slovenia|Somalia|Sudan|Syria|Tunisia|Uganda|Ukraine|Uruguay|Vietnam|Yemen|Zambia|Mars|Texas"
    "|Atlantis|the moon|Bavaria|Scotland|Wales|Europe|Asia"
).split("|")

UNKNOWN = "Sorry, I do not know that. I am llamita, only a tiny demo model."
