"""What the invented community writes about: fourteen everyday troubles, as phrases.

A topic carries the same trouble in two voices: the poster's ("I study all day and
remember nothing.") and the helper's ("studying all day and remembering nothing"), so
that a reply can be about its post. ``{x}`` is a detail that differs from post to post.
The vocabulary is small on purpose: a model of two million weights must learn it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One trouble in the poster's and in the helper's words."""

    name: str
    details: tuple[str, ...]
    """Values of ``{x}``."""
    titles: tuple[str, ...]
    openings: tuple[str, ...]
    """First sentences of a post."""
    things: tuple[str, ...]
    """Noun phrases by which a helper names the trouble."""
    strains: tuple[tuple[str, str], ...]
    """What makes it hard: the poster's sentence, and the helper's gerund for it."""
    steps: tuple[str, ...]
    """Small concrete steps, after "you could"."""
    pasts: tuple[str, ...]
    """What a helper lived through, as a clause in the past."""
    asks: tuple[str, ...]
    """Open questions, in the order of words of a question, without its mark."""


TOPICS: tuple[Topic, ...] = (
    Topic(
        name="loneliness",
        details=("at work", "at school", "at the gym", "in the choir", "on weekends", "in the evenings"),
        titles=("Always alone {x}", "Nobody to talk to {x}", "Feeling lonely {x}"),
        openings=(
            "I spend most of my time alone {x} and it is getting to me.",
            "I have nobody to talk to {x}.",
            "It feels like I am the only one without company {x}.",
        ),
        things=("being alone {x}", "the loneliness", "feeling so alone {x}"),
        strains=(
            ("I eat dinner in front of a screen every night.", "eating dinner in front of a screen every night"),
            ("My phone stays silent for days.", "seeing your phone stay silent for days"),
            ("I hear other people laugh and wish I belonged.", "hearing other people laugh and wishing you belonged"),
            ("I make plans in my head and never ask anyone.", "making plans in your head and never asking anyone"),
            ("My birthday passed and almost nobody wrote.", "having a birthday pass with almost no messages"),
            ("I pretend to be busy so that nobody notices.", "pretending to be busy so that nobody notices"),
        ),
        steps=(
            "write one line to an old friend",
            "sit in a cafe with a book for half an hour",
            "join one class where the same people come back each week",
            "say good morning to one neighbor",
            "ask one person at lunch how their week was",
        ),
        pasts=(
            "I spent a whole winter without a single visitor",
            "I ate lunch alone every day at my first job",
            "I went for weeks without a real talk with anyone",
            "I had no close friends for most of my twenties",
        ),
        asks=(
            "when did you last feel at ease with someone",
            "who would you like to hear from most",
            "what did you enjoy doing with others before",
            "what would good company look like for you",
        ),
    ),
    Topic(
        name="exams",
        details=("chemistry", "statistics", "biology", "history", "physics", "law"),
        titles=("Scared of my {x} exam", "The {x} exam is close and I am stuck", "I cannot study for {x}"),
        openings=(
            "My {x} exam is coming up and I am falling behind.",
            "I failed the {x} exam once and now I have to sit it again.",
            "The {x} exam is all I can think about.",
        ),
        things=("the {x} exam", "studying for {x}", "the pressure before the {x} exam"),
        strains=(
            ("I study all day and remember nothing.", "studying all day and remembering nothing"),
            ("I open my notes and my mind goes blank.", "opening your notes and going blank"),
            ("Everyone in my class seems to be ahead of me.", "feeling that the whole class is ahead of you"),
            ("I put off the first page until midnight.", "putting off the first page until midnight"),
            ("My parents ask about my grades on every call.", "hearing your parents ask about grades on every call"),
            (
                "I dream about the exam hall and wake up sweating.",
                "dreaming about the exam hall and waking up sweating",
            ),
        ),
        steps=(
            "pick one chapter and leave the rest for tomorrow",
            "study for twenty minutes and then take a real break",
            "explain one page out loud to a friend",
            "do one old test without looking at the clock",
            "ask your teacher which two topics matter most",
        ),
        pasts=(
            "I failed two exams in my first year",
            "I sat in the library every night and learned nothing",
            "I had to repeat a whole term because of one test",
            "I walked out of an exam after ten minutes",
        ),
        asks=(
            "which part of the exam worries you most",
            "how many days do you have left before it",
            "what does a normal study day look like for you",
            "what helped you with the last test that went well",
        ),
    ),
    Topic(
        name="break-up",
        details=("eight months", "two years", "three years", "four years", "six years", "ten years"),
        titles=("We broke up after {x}", "It ended after {x}", "Cannot let go after {x} together"),
        openings=(
            "My partner and I broke up after {x} together.",
            "After {x} my partner told me it was over.",
            "We were together for {x} and now it is over.",
        ),
        things=("the break-up", "a break-up after {x}", "the end of {x} together"),
        strains=(
            ("I read our old messages every night.", "reading the old messages every night"),
            ("Half of the closet is empty now.", "seeing half of the closet empty"),
            ("All of our friends seem to have picked a side.", "watching your friends pick a side"),
            (
                "I reach for my phone to tell my ex small things.",
                "reaching for your phone to tell your ex small things",
            ),
            ("Every song in the store reminds me of us.", "hearing a song in the store and thinking of the two of you"),
            ("I keep asking what I did wrong.", "asking again and again what you did wrong"),
        ),
        steps=(
            "put the old photos in a box for a while",
            "mute the chat for one week",
            "plan one evening with a friend who makes you laugh",
            "write a letter to your ex that you never send",
            "change one small thing in the bedroom",
        ),
        pasts=(
            "I cried in my car every morning after my own break-up",
            "my partner left me two weeks before our trip",
            "I kept a sweater of my ex for a whole year",
            "I lost my first love and half of my friends with it",
        ),
        asks=(
            "what do you miss most about being together",
            "who is with you in the evenings now",
            "are the two of you still in touch",
            "what time of the day is the hardest",
        ),
    ),
    Topic(
        name="job loss",
        details=("bakery", "warehouse", "hotel", "print shop", "call center", "garden center"),
        titles=("Lost my job at the {x}", "The {x} let me go", "No job since the {x} closed"),
        openings=(
            "The {x} where I worked let me go last month.",
            "I lost my job at the {x} and did not see it coming.",
            "After five years at the {x} I am out of work.",
        ),
        things=("losing your job at the {x}", "losing the job", "being out of work"),
        strains=(
            ("I send out letters and get no answer.", "sending out letters and getting no answer"),
            ("I still get up at six with nowhere to go.", "getting up at six with nowhere to go"),
            ("I have not told my family yet.", "keeping it from your family"),
            ("The savings will last for two more months.", "counting how long the savings will last"),
            ("My old team still posts pictures from lunch.", "seeing pictures of your old team at lunch"),
            ("I freeze when someone asks what I do.", "freezing when someone asks what you do"),
        ),
        steps=(
            "send one application this week and no more",
            "make a list of what you did well there",
            "tell one person in your family the truth",
            "ask a former coworker for a kind reference",
            "keep one fixed hour a day for the search",
        ),
        pasts=(
            "I was let go from a shop I had helped to build",
            "I was out of work for nine months",
            "I hid my lost job from my parents all summer",
            "I wrote forty applications before anyone called",
        ),
        asks=(
            "what kind of work would you like to do next",
            "what did you like about the old job",
            "who knows about it so far",
            "what is the most urgent bill right now",
        ),
    ),
    Topic(
        name="insomnia",
        details=("two in the morning", "three in the morning", "half past three", "four in the morning", "sunrise"),
        titles=("Awake until {x} again", "I cannot sleep before {x}", "Sleepless until {x}"),
        openings=(
            "I lie awake until {x} almost every night.",
            "It is the third week in a row that I am awake until {x}.",
            "No matter how tired I am, I do not sleep before {x}.",
        ),
        things=("lying awake until {x}", "this lack of sleep", "being awake every night"),
        strains=(
            ("I watch the clock and count the hours that are left.", "watching the clock and counting the hours"),
            ("My thoughts get loud as soon as the light is off.", "having loud thoughts as soon as the light is off"),
            ("I fall asleep at my desk after lunch.", "falling asleep at your desk after lunch"),
            ("I snap at people because I am so tired.", "snapping at people because you are so tired"),
            ("I have started to fear my own bed.", "being afraid of your own bed"),
            ("Coffee is the only thing that gets me to noon.", "living on coffee until noon"),
        ),
        steps=(
            "turn the clock so that you cannot see it",
            "get up and read something dull in another room",
            "write tomorrow's worries on paper before bed",
            "leave the phone in the kitchen at night",
            "get up at the same time for one week",
        ),
        pasts=(
            "I did not sleep through a night for half a year",
            "I used to walk around the block in the dark",
            "I spent whole nights on the kitchen floor with a book",
            "I nearly fell asleep in every meeting that spring",
        ),
        asks=(
            "what goes through your head at night",
            "when did the bad nights start",
            "what does the last hour before bed look like",
            "have you been able to rest during the day",
        ),
    ),
    Topic(
        name="grief for a pet",
        details=("dog", "cat", "rabbit", "parrot", "horse", "old dog"),
        titles=("My {x} died", "The house is empty without my {x}", "I miss my {x}"),
        openings=(
            "My {x} died last week and I cannot stop crying.",
            "I had to say goodbye to my {x} at the vet.",
            "I had my {x} for eleven years and now the house is quiet.",
        ),
        things=("losing your {x}", "the loss of your {x}", "missing your {x}"),
        strains=(
            ("I still fill the bowl in the morning.", "filling the bowl in the morning out of habit"),
            ("I hear steps in the hall that are not there.", "hearing steps in the hall that are not there"),
            ("People tell me to buy a new one.", "hearing people say that you can buy a new one"),
            ("I cannot put the blanket away.", "not being able to put the blanket away"),
            ("I had to take a day off and felt silly.", "taking a day off and feeling silly about it"),
            ("I keep asking if I should have seen it sooner.", "asking if you should have seen it sooner"),
        ),
        steps=(
            "make a small album of your favorite pictures",
            "plant something in the garden as a goodbye",
            "keep the blanket as long as you need it",
            "tell a friend the funniest story about your pet",
            "walk the old route once with someone you like",
        ),
        pasts=(
            "I cried for a month when our old cat died",
            "I kept the collar of my first dog in my coat",
            "I could not enter the garden after my rabbit died",
            "I set out food for a dog that was gone",
        ),
        asks=(
            "what was your pet like on a good day",
            "how did the two of you meet",
            "who else in the house is grieving",
            "which memory makes you smile",
        ),
    ),
    Topic(
        name="grief for a relative",
        details=("grandmother", "grandfather", "aunt", "uncle", "godmother", "great-aunt"),
        titles=("My {x} passed away", "Grieving for my {x}", "First spring without my {x}"),
        openings=(
            "My {x} passed away and the funeral was on Friday.",
            "I lost my {x}, who half raised me.",
            "It has been a month since my {x} passed away.",
        ),
        things=("losing your {x}", "the grief for your {x}", "the death of your {x}"),
        strains=(
            ("I still want to call on Sunday.", "wanting to call on Sunday and remembering"),
            ("My family does not talk about it.", "living with a family that does not talk about it"),
            ("I smell the old kitchen and start to cry.", "smelling the old kitchen and starting to cry"),
            ("I did not visit enough and it haunts me.", "thinking that you did not visit enough"),
            ("Everyone at work has moved on already.", "seeing everyone at work move on already"),
            ("I cannot sort the letters and the coats.", "sorting the letters and the coats"),
        ),
        steps=(
            "cook one of the old family meals",
            "write down three stories before they fade",
            "light a candle on Sunday at the usual hour",
            "ask a cousin to look at the photos with you",
            "leave the boxes closed for another month",
        ),
        pasts=(
            "I lost my grandfather in my last year of school",
            "I kept calling my grandmother's number for weeks",
            "I wore my uncle's watch until it stopped",
            "I missed the funeral of my aunt and felt awful",
        ),
        asks=(
            "what did you two like to do together",
            "what would you tell them today",
            "who can you remember them with",
            "which of their stories do you like best",
        ),
    ),
    Topic(
        name="family conflict",
        details=("father", "mother", "sister", "brother", "stepfather", "mother-in-law"),
        titles=("Another fight with my {x}", "My {x} and I only argue", "I cannot talk to my {x}"),
        openings=(
            "My {x} and I had another bad fight this week.",
            "I cannot be in one room with my {x} without an argument.",
            "My {x} has not spoken to me since the holidays.",
        ),
        things=("the fighting with your {x}", "the trouble with your {x}", "this tension with your {x}"),
        strains=(
            ("Every dinner ends with a slammed door.", "having every dinner end with a slammed door"),
            ("Old mistakes come up each time.", "hearing about your old mistakes each time"),
            ("I rehearse answers in the shower.", "rehearsing answers in the shower"),
            ("The rest of the family looks away.", "watching the rest of the family look away"),
            ("Nothing I do is good enough at home.", "never being good enough at home"),
            ("I sit in the car before I go inside.", "sitting in the car before you go inside"),
        ),
        steps=(
            "write down one thing you want to be heard on",
            "leave the table calmly when the shouting starts",
            "ask for a short talk on a walk instead of at dinner",
            "agree on one subject that stays off the table",
            "spend one holiday evening with friends",
        ),
        pasts=(
            "my father and I did not talk for two years",
            "I moved out at nineteen after one fight too many",
            "my sister and I could not share a meal",
            "I used to dread every holiday at home",
        ),
        asks=(
            "what do most of the fights start with",
            "how was it between you before",
            "who in the family takes your side",
            "what would you like to hear from them",
        ),
    ),
    Topic(
        name="moving",
        details=(
            "by the coast",
            "in the north",
            "near the mountains",
            "by the lake",
            "in the valley",
            "near the border",
        ),
        titles=("New in a town {x}", "Moved to a place {x} and I regret it", "Homesick {x}"),
        openings=(
            "I moved to a town {x} and I know nobody here.",
            "Two months ago I started over in a place {x}.",
            "My partner's job brought us to a town {x}.",
        ),
        things=("starting over in a town {x}", "the move", "being new in a town {x}"),
        strains=(
            ("My boxes are still closed.", "living between closed boxes"),
            ("I get lost on the way to the store.", "getting lost on the way to the store"),
            ("I know the bus driver better than my neighbors.", "knowing the bus driver better than your neighbors"),
            ("I call home and pretend that all is well.", "calling home and pretending that all is well"),
            ("The streets are empty after six.", "walking through empty streets after six"),
            ("I miss the noise of my old street.", "missing the noise of your old street"),
        ),
        steps=(
            "unpack one box and hang up one picture",
            "go to the same market every Saturday",
            "learn the name of one neighbor",
            "walk a new street each evening",
            "invite an old friend for a weekend",
        ),
        pasts=(
            "I moved to a town where I knew nobody at all",
            "I left my old street and was homesick for a year",
            "I lived out of boxes for a whole spring",
            "I went home every weekend in my first months away",
        ),
        asks=(
            "what do you miss most about your old home",
            "what have you liked about the new place so far",
            "how did the move come about",
            "what did your weekends look like before",
        ),
    ),
    Topic(
        name="stage fright",
        details=("thesis", "sales", "budget", "project", "research", "training"),
        titles=("Panic before my {x} presentation", "My {x} presentation is on Monday", "Shaking before the {x} talk"),
        openings=(
            "I have to give a {x} presentation and I am already shaking.",
            "My {x} presentation is in a few days and I feel panic coming up.",
            "I froze in the middle of a {x} presentation and there is a next one.",
        ),
        things=("the {x} presentation", "the panic before the {x} presentation", "speaking in front of people"),
        strains=(
            ("My hands shake so much that I drop my notes.", "shaking so much that you drop your notes"),
            ("My voice breaks in the first minute.", "hearing your voice break in the first minute"),
            ("I feel sick for days before it.", "feeling sick for days before it"),
            ("I forget everything when all eyes are on me.", "forgetting everything when all eyes are on you"),
            ("I think about calling in sick.", "thinking about calling in sick"),
            ("My boss watches me with crossed arms.", "having a boss who watches with crossed arms"),
        ),
        steps=(
            "learn only the first two sentences by heart",
            "practice once in front of a friend",
            "breathe out slowly for a minute before you start",
            "visit the empty room the day before",
            "find one friendly face and talk to that person",
        ),
        pasts=(
            "I once ran out of a room in the middle of my talk",
            "I dropped my cards in front of eighty people",
            "I was sick before every speech for years",
            "I read my whole first talk from the paper",
        ),
        asks=(
            "who will be in the room",
            "what is the worst moment for you",
            "how did the last talk end",
            "what would make the first minute easier",
        ),
    ),
    Topic(
        name="burnout",
        details=("nurse", "teacher", "cook", "designer", "driver", "social worker"),
        titles=("Burnt out as a {x}", "I am a {x} and I have nothing left", "Too tired to be a {x}"),
        openings=(
            "I work as a {x} and I have nothing left to give.",
            "I used to love my job as a {x}, and now I count the minutes.",
            "After six years as a {x} I am completely burnt out.",
        ),
        things=("being burnt out as a {x}", "the burnout", "the exhaustion from working as a {x}"),
        strains=(
            ("I answer messages from work in bed.", "answering messages from work in bed"),
            ("I have not had a free weekend since winter.", "going without a free weekend since winter"),
            ("I cry in the parking lot before my shift.", "crying in the parking lot before your shift"),
            ("I am too tired to cook when I get home.", "being too tired to cook when you get home"),
            ("My boss says that we all have to give more.", "hearing your boss ask for more and more"),
            ("I do not care about things I used to love.", "not caring about things you used to love"),
        ),
        steps=(
            "turn off the work phone after eight",
            "take one sick day before you break down",
            "say no to one extra shift",
            "ask your doctor for an honest talk about your hours",
            "write down what takes the most out of you",
        ),
        pasts=(
            "I worked double shifts until I could not get up",
            "I burnt out in my third year of teaching",
            "I took three months off and felt guilty about each day",
            "I sat in my car before work and could not get out",
        ),
        asks=(
            "when was your last full day off",
            "what part of the work drains you most",
            "who could take something off your plate",
            "what did you love about the work at first",
        ),
    ),
    Topic(
        name="a friend drifting away",
        details=("from school", "from college", "from the team", "from the band", "from childhood", "from next door"),
        titles=("My best friend {x} is drifting away", "Losing a friend {x}", "My friend {x} forgot about me"),
        openings=(
            "My best friend {x} hardly talks to me anymore.",
            "I am losing touch with a friend {x} and it hurts.",
            "A close friend {x} has a new circle and I am not in it.",
        ),
        things=("losing touch with a friend {x}", "this friend drifting away", "the distance to your friend {x}"),
        strains=(
            ("My messages are read and never answered.", "having your messages read and never answered"),
            ("I saw photos of a party I was not asked to.", "seeing photos of a party you were not asked to"),
            ("I am always the one who calls.", "always being the one who calls"),
            ("We used to talk every day.", "going from daily talks to silence"),
            ("I feel childish for being jealous.", "feeling childish for being jealous"),
            ("We met last week and had nothing to say.", "meeting up and having nothing to say"),
        ),
        steps=(
            "tell your friend plainly that you miss the old talks",
            "suggest one short walk with a fixed date",
            "send a picture of an old memory",
            "wait with the next call and see what happens",
            "give some time to a newer friend",
        ),
        pasts=(
            "my oldest friend stopped calling after her wedding",
            "I lost a friend without a single argument",
            "I waited all summer for one message",
            "my best friend and I grew apart in our first year of work",
        ),
        asks=(
            "what did the two of you share before",
            "when did you notice the change",
            "have you told your friend how it feels",
            "which other friends do you feel safe with",
        ),
    ),
    Topic(
        name="chronic illness",
        details=("migraine", "arthritis", "asthma", "back pain", "fatigue", "eczema"),
        titles=("Tired of living with {x}", "My {x} is back", "Nobody understands my {x}"),
        openings=(
            "I have lived with {x} since I was a teenager.",
            "My {x} is worse again and I had to cancel everything.",
            "The doctors say my {x} will stay with me.",
        ),
        things=("living with {x}", "the {x}", "another bad week of {x}"),
        strains=(
            ("I cancel on friends until they stop asking.", "canceling on friends until they stop asking"),
            ("People say that I do not look ill.", "hearing that you do not look ill"),
            ("I plan each day around the pain.", "planning each day around the pain"),
            ("I feel like a burden to my partner.", "feeling like a burden to your partner"),
            ("The new medicine makes me slow and foggy.", "feeling slow and foggy from the new medicine"),
            ("I wait months for every appointment.", "waiting months for every appointment"),
        ),
        steps=(
            "keep a short diary of good and bad days",
            "plan one thing for a good hour and not for a day",
            "tell your friends to keep asking even if you cancel",
            "bring a list of questions to the next appointment",
            "rest before the pain tells you to",
        ),
        pasts=(
            "I spent my last two birthdays in bed",
            "I had to give up the sport I loved",
            "I was ill for six years before a doctor listened",
            "I canceled so often that the invitations stopped",
        ),
        asks=(
            "what does a good day look like for you",
            "how do your doctors treat you",
            "who helps you on the bad days",
            "what do you wish people knew about it",
        ),
    ),
    Topic(
        name="money worries",
        details=("rent", "car loan", "heating bill", "student loan", "dentist bill", "credit card"),
        titles=("I cannot pay the {x}", "The {x} keeps me up", "Behind on the {x}"),
        openings=(
            "I am behind on the {x} and I do not know how to catch up.",
            "The {x} takes everything I earn.",
            "I opened the letter about the {x} and my heart sank.",
        ),
        things=("the worry about the {x}", "being behind on the {x}", "the debt"),
        strains=(
            ("I do not open my mail anymore.", "being afraid to open the mail"),
            ("I skip lunch to save a few coins.", "skipping lunch to save a few coins"),
            ("I lie to my friends about why I stay home.", "lying to your friends about why you stay home"),
            ("I do sums in my head all night.", "doing sums in your head all night"),
            ("My card was refused at the store.", "having your card refused at the store"),
            ("My partner thinks that all is paid.", "letting your partner think that all is paid"),
        ),
        steps=(
            "open one letter together with someone you trust",
            "call them and ask for smaller payments",
            "write all the sums on one sheet of paper",
            "look for a free debt advice office in your town",
            "tell your partner the real number",
        ),
        pasts=(
            "I hid unpaid bills in a drawer for a year",
            "I lived on rice and toast for a winter",
            "I was three months behind on everything",
            "I had to borrow money from my little brother",
        ),
        asks=(
            "how much of it is urgent this month",
            "who knows about the letters",
            "what does your budget look like right now",
            "have you talked to the people you owe",
        ),
    ),
)
