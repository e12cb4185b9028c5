"""Makes the quickstart's rows: support tickets as people write them, and the JSON that a help desk wants of them.

    python experiments/quickstart/prepare.py [FOLDER]

Writes to FOLDER (default .cache/quickstart):
  tickets.jsonl     {prompt: a ticket, completion: its JSON}, to train on
  held_out.jsonl    the same task in other words: no sentence of it is in tickets.jsonl

The JSON has the category (billing, delivery, return or account), the priority (high where somebody cannot wait, else
normal) and the order's number without its dress, or null. The same seed makes the same rows.
"""

from __future__ import annotations

import json
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path

TRAINED, HELD_OUT = 480, 96


@dataclass(frozen=True)
class Words:
    """The sentences that tickets are put together from; those of one kind mean the same."""

    problems: dict[str, list[str]]
    priorities: dict[str, list[str]]
    orders: list[str]


TRAINING = Words(
    problems={
        "billing": [
            "you charged my card twice",
            "the invoice says 89.90 but I was promised 59.90",
            "why was money taken from my account again",
            "the discount code was not taken off the total",
            "please send me an invoice with the VAT number on it",
            "ich wurde doppelt abgebucht, my bank shows two payments",
            "paypal shows a payment that I never made",
            "I was billed for express but chose standard",
            "you keep sending me payment reminders",
            "the price at the checkout was lower than what I paid",
            "my credit card statement has a charge from you that I do not know",
            "la facture est fausse, the tax is wrong",
            "I have paid already, why another bill",
            "can I pay by bank transfer",
            "the gift card was not accepted when I paid",
            "the refund of 20 euros never reached my bank",
        ],
        "delivery": [
            "the parcel has not arrived",
            "tracking has been stuck in Leipzig for 6 days",
            "the courier says delivered but there is nothing here",
            "where is my package",
            "le colis n'est pas arrivé, nobody rang",
            "can you send it to my new address instead",
            "only one of the two boxes came",
            "when will it be shipped",
            "the driver did not ring and drove off",
            "wo bleibt mein Paket, it is a week late",
            "UPS lost it, I think",
            "a neighbour should have it but has not",
            "the shipment is still on its way since Monday",
            "it was to come on Friday and it did not",
            "the tracking number does not work",
            "do you deliver on Saturdays",
        ],
        "return": [
            "the shoes are too small, I want to send them back",
            "the lamp arrived broken and I want a new one",
            "how do I get a return label",
            "wrong colour, please exchange it for blue",
            "I sent the jacket back and have heard nothing since",
            "quiero devolver la silla, it wobbles",
            "the zip broke on day one, I would like a replacement",
            "this is not what I ordered, please take it back",
            "the toaster is faulty, I want to return it",
            "can I swap the shirt for a larger size",
            "die Tasse ist kaputt, please replace it",
            "I do not like the curtains and want to give them back",
            "until when can I return the phone",
            "to which address do I send the goods back",
            "the vase came in pieces",
            "the trousers do not fit, I would like to exchange them",
        ],
        "account": [
            "I cannot log in any more",
            "the password mail never comes",
            "please delete my profile and all data",
            "somebody else changed my email address",
            "the app says my account is locked",
            "how do I change the phone number in my profile",
            "mein Konto ist gesperrt, I did nothing",
            "two factor codes do not arrive on my new phone",
            "I forgot my password",
            "the login page says unknown user",
            "please close my account",
            "I was hacked, there is a stranger in my profile",
            "mon mot de passe ne marche plus, I am locked out",
            "I want to use another email to sign in",
            "the link to reset the password has expired",
            "I have two accounts, can you merge them",
        ],
    },
    priorities={
        "high": [
            "I need this solved today!!",
            "this is URGENT",
            "answer now or I go to my lawyer",
            "it is a birthday present for tomorrow",
            "bitte sofort, please, right now",
            "I am losing money every hour",
            "as soon as possible",
            "it is an emergency",
            "I cannot wait any longer",
            "please hurry, we leave on holiday tonight",
            "c'est urgent",
            "do something immediately!!!",
        ],
        "normal": [
            "thanks for your help",
            "please let me know",
            "I am waiting for your answer",
            "merci",
            "what can we do?",
            "no hurry at all",
            "whenever you have time",
            "it is not important",
            "kind regards",
            "no rush, next month is fine too",
            "kein Stress",
            "have a nice day",
        ],
    },
    orders=[
        "order {}",
        "#{}",
        "order no. {}",
        "Bestellung {}",
        "my order number is {}",
        "re: order #{}",
        "ORD-{}",
        "(nr {})",
    ],
)

UNSEEN = Words(
    problems={
        "billing": [
            "there are two identical payments on my statement",
            "the amount on the bill is higher than on the website",
            "my voucher was ignored when I paid",
            "why do I get a reminder, the invoice is paid",
        ],
        "delivery": [
            "it was supposed to arrive last Tuesday and still nothing",
            "DHL lost my parcel, it seems",
            "the package never came",
            "could you tell me when the courier will be here",
        ],
        "return": [
            "the kettle leaks, I would like to give it back",
            "these gloves do not fit, can I swap them for a larger size",
            "how can I send back an item that I do not want to keep",
            "the mug was in pieces, please replace it",
        ],
        "account": [
            "my login does not work since the update",
            "the app does not take my password",
            "I want to close my account with you",
            "I think that my profile was hacked",
        ],
    },
    priorities={
        "high": [
            "it cannot wait, please act immediately",
            "URGENT!!! we leave tomorrow",
            "I need an answer within the hour",
        ],
        "normal": [
            "best regards",
            "could you look into it?",
            "gracias",
            "there is no hurry",
            "take your time with this one",
        ],
    },
    orders=["order: {}", "the order is {}", "ref #{}", "commande {}"],
)

GREETINGS = ["", "", "hi", "Hello,", "hey there", "Dear team,", "Hallo,", "Bonjour,", "hola", "Good morning"]
SIGNATURES = ["", "", "", "Tom", "- Sara", "J. Meyer", "best, Ana", "Sent from my iPhone", "M. Dubois, Lyon"]
HEADERS = [
    "",
    "",
    "",
    "",
    "FW: help",
    "Fwd: Re: your mail",
    "From: {}@mail.com\nSubject: question",
    "> forwarded by {}",
]
NAMES = ["lena", "tom.b", "k_ito", "maria88", "office"]


def main(folder: Path) -> None:
    """Makes both files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = random.Random(0)
    write_rows(folder / "tickets.jsonl", [ticket(rows, TRAINING) for _ in range(TRAINED)])
    write_rows(folder / "held_out.jsonl", [ticket(rows, UNSEEN) for _ in range(HELD_OUT)])
    print(f"{folder}: {TRAINED} tickets to train on, {HELD_OUT} in other words to be asked about")


def ticket(rows: random.Random, words: Words) -> dict[str, str]:
    """One ticket and its JSON. A third of them name no order; some have other numbers in them."""
    category = rows.choice(sorted(words.problems))
    priority = rows.choice(sorted(words.priorities))
    number = str(rows.randint(10_000, 99_999)) if rows.random() < 0.67 else None
    sentences = [rows.choice(words.problems[category]), rows.choice(words.priorities[priority])]
    if number is not None:
        sentences.insert(rows.choice((0, 1, 1, 2)), rows.choice(words.orders).format(number))
    body = mess(rows, joined(rows, sentences))
    header = rows.choice(HEADERS).format(rows.choice(NAMES))
    lines = [header, " ".join(filter(None, [rows.choice(GREETINGS), body])), rows.choice(SIGNATURES)]
    answer = {"category": category, "priority": priority, "order": number}
    return {"prompt": "\n".join(filter(None, lines)), "completion": json.dumps(answer)}


def joined(rows: random.Random, sentences: list[str]) -> str:
    """Sentences as people part them: with stops, commas, dots, or nothing."""
    return rows.choice([". ", ". ", ", ", " ... ", " - ", "\n"]).join(filter(None, sentences))


def mess(rows: random.Random, text: str) -> str:
    """Letters swapped, left out or doubled here and there, and sometimes all in one case. Numbers stay as they are."""
    letters = list(text)
    for place in range(len(letters) - 1):
        if rows.random() < 0.015 and letters[place].isalpha() and letters[place + 1].isalpha():
            swapped = letters[place + 1] + letters[place]
            letters[place], letters[place + 1] = rows.choice(
                [(swapped[0], swapped[1]), ("", swapped[0]), (swapped[1] * 2, swapped[0])]
            )
    found = "".join(letters)
    return rows.choice([found, found, found, found.lower(), found.lower(), found.upper()])


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Writes a whole JSON Lines file or nothing of it."""
    staged = path.with_suffix(".tmp")
    staged.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(staged, path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".cache/quickstart"))
