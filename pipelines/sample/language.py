"""The invented community's wording: sentence templates by what they do to the reader.

Replies are composed of sentences of one feature each. Slots are filled from the post's
topic: ``{thing}`` names the trouble, ``{strain}`` what makes it hard, ``{feel}`` the
poster's own word, ``{step}``, ``{past}`` and ``{ask}`` a small step, a helper's own
past, an open question. Capital letters are set after filling, so a slot may come first.
Each template holds a cue by which ``scorer`` recognises its feature; a test holds that.
"""

from collections.abc import Mapping

FEELINGS = (
    "worn out", "lost", "ashamed", "scared", "angry", "numb", "sad", "guilty", "helpless",
    "restless", "empty", "stuck", "hurt", "tired", "afraid", "overwhelmed",
)  # fmt: skip

GREETINGS = ("Hey there.", "Hello.", "Hi.", "Good evening.")

AGAIN = ("all of this", "all of this", "this")
"""What ``{thing}`` is called once it has been named."""

REPLIES: Mapping[str, tuple[str, ...]] = {
    "validation": (
        "it makes sense that {strain} wears you down.",
        "anyone in your place would feel {feel} about {thing}.",
        "{thing} would weigh on anyone, and your feelings make sense.",
        "{strain} sounds really hard.",
        "you are not weak for feeling {feel} about {thing}.",
        "I am sorry that you carry {thing} on your own.",
        "I can hear how heavy {thing} has become for you.",
        "there is nothing wrong with you for struggling with {thing}.",
        "no wonder you feel {feel} after {strain}.",
        "{strain} is a lot for one person to carry.",
        "thank you for telling us about {thing}, that took courage.",
        "you have every right to feel {feel} about {thing}.",
        "it is understandable that {thing} stays on your mind all day.",
        "feeling {feel} is a very human answer to {thing}.",
        "what you feel is real, and {strain} would hurt anyone.",
        "I am really sorry that {thing} leaves you so {feel}.",
        "your feelings make sense to me, you had a lot to carry.",
        "I read this and felt for you, {strain} must be exhausting.",
    ),
    "question": (
        "{ask}?",
        "can I ask, {ask}?",
        "may I ask, {ask}?",
        "if you feel like sharing, {ask}?",
        "I was wondering, {ask}?",
        "when you have a moment, {ask}?",
        "tell me more if you like, {ask}?",
        "only if you want to answer, {ask}?",
        "what would help you most with {thing} right now?",
        "how are you holding up with {thing} today?",
        "is there someone near you who knows about {thing}?",
        "what do you need most from us right now?",
        "I would like to understand it better, {ask}?",
        "what does {strain} feel like for you?",
    ),
    "step": (
        "one small thing you could try is to {step}.",
        "maybe start small and {step}.",
        "a first step might be to {step}.",
        "you do not have to fix it all at once, just {step}.",
        "if you have the energy, {step}.",
        "it may help to {step}.",
        "before anything else, try to {step}.",
        "my advice would be to {step} and see how it goes.",
        "be gentle with yourself and {step}.",
        "something simple that can help is to {step}.",
        "give yourself permission to {step}.",
        "this week you could {step}, nothing more.",
        "with {thing}, one small step is enough: {step}.",
        "when {thing} gets too much, you could {step}.",
    ),
    "shared": (
        "I have been there myself: {past}.",
        "I know this from my own life, {past}.",
        "years ago {past}, and it slowly got easier.",
        "when {past}, I felt the same way.",
        "{past}, so I know a bit of what this is like.",
        "two years ago {past} and I thought it would never pass.",
        "you are not alone in this, {past}.",
        "{past}, and talking about it was what helped me.",
        "this could have been me, {past}.",
        "I still remember how {past}.",
        "not long ago {past}, and things are better now.",
        "same here, {past}.",
        "I went through something like {thing}, {past}.",
        "{past}, and I also felt {feel} for a long time.",
    ),
    "wish": (
        "I hope it gets a little lighter soon.",
        "sending you a warm hug tonight.",
        "I am rooting for you with {thing}.",
        "I wish you some rest from {thing}.",
        "please come back and tell us how it goes.",
        "take good care of yourself this week.",
        "I hope tomorrow is kinder to you.",
        "we are glad that you wrote to us.",
        "I will be thinking of you and {thing}.",
        "be as kind to yourself as you would be to a friend.",
        "good luck with {thing}, from my heart.",
        "you matter here, and you are welcome any time.",
    ),
    "filler": (
        "I saw your post about {thing} on my way home.",
        "I read the whole post twice before writing.",
        "I do not write here very often.",
        "I am writing this on my phone, so sorry for mistakes.",
        "{thing} comes up a lot in this place.",
        "I was reading about {thing} the other day.",
        "my cousin knows somebody with a similar story.",
        "I do not have much to add about {thing}.",
        "it rained here all day, so I have time to read.",
        "I will look in on this thread again later.",
        "somebody else wrote about {thing} last week.",
        "there are a few older threads about {thing}.",
        "I found this thread by chance during my lunch break.",
        "I have been a member here for some time.",
    ),
    "minimising": (
        "other people have it much worse than you.",
        "{thing} is not that bad, really.",
        "at least you do not have a serious problem.",
        "everyone goes through {thing}, so it is no big deal.",
        "you are making {thing} bigger than it is.",
        "{strain} is just a phase.",
        "it could be worse, some people have nothing at all.",
        "I would be happy if I only had {thing} to worry about.",
        "you are overreacting, {strain} is normal.",
        "in a year you will laugh about {thing}.",
        "others manage {thing} without complaining.",
        "{thing} is not the end of the world.",
        "compared to my week, {strain} is a small thing.",
        "{thing} is no big deal for most people.",
    ),
    "dismissal": (
        "just get over {thing} already.",
        "I do not see why {thing} is a problem at all.",
        "stop thinking about {thing} and move on.",
        "nobody here can do anything about {thing}.",
        "come back when you have a real problem.",
        "I would not waste a post on {thing}.",
        "just cheer up and forget about it.",
        "there is no point in talking about {thing}.",
        "everyone is tired of reading about {thing}.",
        "get a grip and stop writing about {thing}.",
        "whatever, nobody will care in a week.",
        "just move on, {strain} is not worth a post.",
        "I stopped reading at {thing}, to be honest.",
        "not this again, just ignore {thing}.",
    ),
    "judgement": (
        "you brought {thing} on yourself.",
        "sounds to me like you are just lazy.",
        "{strain} is your own fault.",
        "you are being selfish and dramatic about {thing}.",
        "a grown person should be able to handle {thing}.",
        "you should be ashamed of making such a fuss.",
        "{thing} would not be a problem if you had tried harder.",
        "you clearly do not want to change anything.",
        "people like you always complain about {thing}.",
        "you are too soft, and {thing} proves it.",
        "that is a foolish way to deal with {thing}.",
        "you only have yourself to blame for {strain}.",
        "stop playing the victim of {thing}.",
        "{strain} is what weak people do.",
    ),
}
"""Templates of replies by feature."""

FEELING_SENTENCES = (
    "I feel {feel} and {feel2} most of the time.",
    "Most days I am just {feel}.",
    "By the evening I am {feel} and I cannot explain why.",
    "It leaves me {feel} and I do not know what to do with it.",
    "I am so {feel} that I cannot think straight.",
    "I wake up {feel} and I go to bed {feel2}.",
    "I did not know that a person could feel so {feel}.",
    "I am {feel}, and a bit {feel2} too.",
)

CONTEXTS = (
    "This has been going on for {time}.",
    "It started about {time} ago.",
    "Some days are fine, but {day} was bad.",
    "I told {person} a little, but not all of it.",
    "From the outside I look fine.",
    "I keep telling myself that it will pass.",
    "I am usually the one who helps others.",
    "I tried to talk to {person} and could not find the words.",
    "I had hoped that it would be better by now.",
    "It was never this bad before.",
    "I have read other threads here and they helped a bit.",
    "On the phone with {person} I said that I was okay.",
    "Yesterday I sat on the stairs for an hour.",
    "I have never written about this to anyone.",
)
TIMES = ("two weeks", "three weeks", "a month", "two months", "half a year", "a year")
DAYS = ("yesterday", "last Monday", "this Sunday", "last night", "the whole weekend", "Thursday")
PEOPLE = ("my sister", "a coworker", "my roommate", "one friend", "my doctor", "my cousin", "my neighbor")

CLOSINGS = (
    "Has anyone been through something like this?",
    "I just needed to write it down somewhere.",
    "How do you get through days like these?",
    "Does it ever get easier?",
    "I would be glad about any advice.",
    "I do not know what I expect from posting this.",
    "What would you do in my place?",
    "Thank you for reading this far.",
    "I just want to feel like myself again.",
    "Please tell me that I am not the only one.",
    "Any kind word would help tonight.",
    "What helped you when it was bad?",
    "Sorry that this got so long.",
    "I do not need a solution, only someone who listens.",
)

EXTRA_SENTENCES = {
    "mention": "Maybe u/{name} can say more about it.",
    "email": "You can write to me at {name}@quietmail.example any time.",
    "url": "This page helped me: https://www.quietpages.example/{name}",
    "crisis_line": "If it ever gets too much, you can call or text 988 at any hour.",
}
"""What a helper adds to a few replies; ``{name}`` is an invented account, addresses end in the reserved .example."""
EXTRAS = tuple(EXTRA_SENTENCES.values())

FOREIGN = (
    "Lo siento mucho, espero que mañana sea un día mejor para ti y tu familia.",
    "Yo también pasé por algo parecido el año pasado, un abrazo muy grande desde aquí.",
    "Ánimo, poco a poco las cosas van a mejorar, ya lo verás.",
    "Das tut mir wirklich leid, ich hoffe, dass es dir morgen ein wenig besser geht.",
    "Ich kenne das sehr gut, mir ging es im letzten Jahr genau so wie dir.",
    "Du bist nicht allein, hier hören dir viele Menschen gerne zu.",
    "Je suis vraiment désolé pour toi, j'espère que demain sera une meilleure journée.",
    "Moi aussi, j'ai connu cela l'année dernière, je t'envoie beaucoup de courage.",
    "Prends soin de toi, nous sommes nombreux ici à penser à toi.",
)
"""Everyday comments in Spanish, German and French."""


def sentence(text: str) -> str:
    """``text`` with a capital first letter."""
    return text[:1].upper() + text[1:]
