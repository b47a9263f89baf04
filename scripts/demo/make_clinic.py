#!/usr/bin/env python3
"""Writes a synthetic clinic: visit notes with planted identifiers and a question each, seeded and repeatable.

    make_clinic.py --output DIR [--seed 1] [--patients 450] [--heldout-patients 40] [--shuffle-labels]

Everybody in it is made up by combining syllables and numbers. Files:
    visits.jsonl    training visits, chat_jsonl: {"id", "subject", "messages", "known"}
    heldout.jsonl   visits of other patients, same form
    answers.json    the answer classes (what kind of problem, and the service a patient is sent to)
    planted.jsonl   {"id", "planted": [[kind, text], …]}: every identifier in the visit's text, in order
The answer follows from two facts that the note states in varying words, complaint and time course; the complaint
that a note denies or tells of a relative, and how long an old disease has been known, must not mislead the reader.
--shuffle-labels permutes the answers of visits.jsonl over its records: nothing is left to learn, and held-out
accuracy has to stay at chance.
"""
import argparse
import json
import pathlib
import random

# Complaint group → (ways to say it, service when it is new, service when it has lasted).
COMPLAINTS = {
    "heart": (["chest pain", "a pressure behind the breastbone", "a racing heartbeat", "tightness across the chest"],
              "chest pain unit", "cardiology clinic"),
    "lungs": (["shortness of breath", "wheezing", "coughing fits", "trouble breathing at rest"],
              "breathing support unit", "lung clinic"),
    "nerves": (["numbness of the left arm", "slurred speech", "a severe headache", "weakness of one leg"],
               "stroke unit", "neurology clinic"),
    "belly": (["belly pain", "vomiting after meals", "cramps in the abdomen", "bloating with nausea"],
              "surgical assessment unit", "digestive disease clinic"),
    "joints": (["a swollen knee", "hip pain", "a stiff and painful wrist", "aching shoulders"],
               "fracture room", "rheumatology clinic"),
    "eyes": (["blurred vision", "a red and painful eye", "flashes of light in one eye", "double vision"],
             "eye emergency room", "eye clinic"),
}
NEW = ["since this morning", "for the past two hours", "since last night", "for a few hours", "since lunch today",
       "for less than a day"]
LASTING = ["for several months", "for about six weeks", "on and off for half a year", "for more than a year",
           "since last winter", "for many weeks"]
COMPLAINT_SENTENCES = ["{who} complains of {what} {when}.", "{who} reports {what} {when}.",
                       "{who} came in because of {what}, present {when}.", "Main problem: {what} {when}.",
                       "{when_cap}, {who_mid} has had {what}."]
DENIALS = ["Denies {what}.", "Has not had {what}.", "Asked about {what}: denied.", "{relation} once had {what}."]
HISTORY = ["Known high blood pressure, treated for years.", "Has had diabetes since childhood.", "Does not smoke.",
           "Takes one tablet of a blood thinner a day.", "Allergic to penicillin.", "Lives alone on the third floor.",
           "Works night shifts in a bakery.", "Underwent an appendectomy as a child."]
FINDINGS = ["Blood pressure {systolic}/{diastolic}, pulse {pulse}.", "Temperature {temperature} degrees, pulse {pulse}.",
            "Looks tired, pulse {pulse} and regular.", "Examination otherwise unremarkable."]
QUESTIONS = ["Which service should see this patient?", "Where should this patient be sent?",
             "Name the right service for this visit."]

ONSETS = ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "br", "dr", "gr", "kr", "tr", "st"]
VOWELS = ["a", "e", "i", "o", "u", "ei", "au"]
CODAS = ["", "n", "r", "l", "s", "k", "m", "nd", "rt"]
WOMEN = ["Anna", "Clara", "Elena", "Greta", "Ines", "Lena", "Nadia", "Priya", "Rosa", "Tessa", "Wanda", "Yara"]
MEN = ["Boris", "Dario", "Farid", "Hiro", "Jonas", "Kemal", "Marek", "Oskar", "Samir", "Viktor", "Zoltan", "Milo"]
STREETS = ["Alder", "Birch", "Chestnut", "Dogwood", "Elder", "Hazel", "Juniper", "Linden", "Maple", "Poplar"]
STATES = ["CA", "MA", "NY", "OH", "TX", "WA"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December"]


def surname(rng):
    name = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(rng.choice([2, 3])))
    return name.capitalize()


def date_text(rng, year):
    month, day = rng.randint(1, 12), rng.randint(1, 28)
    return rng.choice([f"{month:02d}/{day:02d}/{year}", f"{year}-{month:02d}-{day:02d}",
                       f"{day} {MONTHS[month - 1]} {year}", f"{MONTHS[month - 1]} {day}, {year}"])


def answer_text(group, fresh):
    """What the note says, then what follows from it."""
    _, new, lasting = COMPLAINTS[group]
    return f"new problem of the {group}: {new}" if fresh else f"lasting problem of the {group}: {lasting}"


class Patient:
    """A made-up person. The subject code is what the clinic calls them; it never reaches a shard as it is."""

    def __init__(self, rng, number):
        self.female = rng.random() < 0.5
        self.first, self.last = rng.choice(WOMEN if self.female else MEN), surname(rng)
        self.age = rng.randint(90, 102) if rng.random() < 0.06 else rng.randint(19, 89)
        self.mrn = f"{rng.randint(1_000_000, 9_999_999)}"
        area = rng.randint(201, 989)
        self.phone = rng.choice([f"({area}) 555-{rng.randint(100, 199):04d}", f"{area}-555-{rng.randint(100, 199):04d}"])
        self.fax = f"{area}-555-{rng.randint(100, 199):04d}"
        self.email = f"{self.first.lower()}.{self.last.lower()}{rng.randint(1, 99)}@mail.example.org"
        self.ssn = f"{rng.randint(100, 665)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}"
        self.street = f"{rng.randint(2, 980)} {rng.choice(STREETS)} Street"
        self.zip = f"{rng.choice(STATES)} {rng.randint(10000, 99899):05d}"
        self.subject = f"patient-{number:05d}-{self.mrn}"
        self.number = number

    @property
    def title(self):
        return "Ms." if self.female else "Mr."


class Note:
    """Collects sentences; every planted identifier is recorded as it is written."""

    def __init__(self):
        self.sentences, self.planted = [], []

    def plant(self, kind, text):
        self.planted.append([kind, text])
        return text

    def add(self, sentence):
        self.sentences.append(sentence)


def opening(rng, p, doctor, year, note):
    name = note.plant("name", f"{p.first} {p.last}")
    age = f"{p.age}-year-old" if p.age < 90 else note.plant("age", f"{p.age}-year-old")
    kind = rng.randrange(3)
    if kind == 0:
        mrn, date = note.plant("mrn", p.mrn), note.plant("date", date_text(rng, year))
        note.add(f"{name}, {age}, MRN {mrn}, was seen on {date}.")
    elif kind == 1:
        date, dr = note.plant("date", date_text(rng, year)), note.plant("name", doctor)
        note.add(f"{name}, {age}, visited Dr. {dr} on {date}.")
    else:
        date, mrn = note.plant("date", date_text(rng, year)), note.plant("mrn", p.mrn)
        note.add(f"Visit of {date}: {name}, {age}, medical record number {mrn}.")


def contact(rng, p, note):
    choices = [
        lambda: f"Phone {note.plant('phone', p.phone)}.",
        lambda: f"Can be reached at {note.plant('email', p.email)}.",
        lambda: f"Lives at {note.plant('address', p.street)}, {note.plant('zip', p.zip)}.",
        lambda: f"SSN {note.plant('ssn', p.ssn)}.",
        lambda: f"Results by fax to {note.plant('fax', p.fax)}.",
        lambda: f"Born on {note.plant('date', date_text(rng, rng.randint(1940, 2004)))}.",
    ]
    for choice in rng.sample(choices, rng.choice([1, 1, 2])):
        note.add(choice())


def complaint(rng, p, group, when, note):
    who = rng.choice(["The patient", "", "name"])
    if who == "":
        who = "She" if p.female else "He"
    elif who == "name":
        who = f"{p.title} {p.last}"
    sentence = rng.choice(COMPLAINT_SENTENCES)
    if who.endswith(p.last) and "{who" in sentence:
        note.plant("name", p.last)
    middle = who if who.endswith(p.last) else who[0].lower() + who[1:]
    return sentence.format(who=who, who_mid=middle, what=rng.choice(COMPLAINTS[group][0]), when=when,
                           when_cap=when[0].upper() + when[1:])


def distractors(rng, p, group):
    found = []
    if rng.random() < 0.6:
        other = rng.choice([g for g in COMPLAINTS if g != group])
        relation = ("Her " if p.female else "His ") + rng.choice(["mother", "father", "sister"])
        found.append(rng.choice(DENIALS).format(what=rng.choice(COMPLAINTS[other][0]), relation=relation))
    if rng.random() < 0.6:
        found.append(rng.choice(HISTORY))
    found.append(rng.choice(FINDINGS).format(
        systolic=rng.randint(100, 170), diastolic=rng.randint(55, 99), pulse=rng.randint(52, 118),
        temperature=f"{rng.randint(362, 389) / 10:.1f}"))
    return found


def visit(rng, p, number, doctor):
    """One record with its answer and the list of what was planted."""
    group, fresh = rng.choice(list(COMPLAINTS)), rng.random() < 0.5
    answer = answer_text(group, fresh)
    note = Note()
    opening(rng, p, doctor, rng.randint(2015, 2024), note)
    contact(rng, p, note)
    note.add(complaint(rng, p, group, rng.choice(NEW if fresh else LASTING), note))
    for sentence in distractors(rng, p, group):
        note.add(sentence)
    record = {
        "id": f"visit-{p.number:05d}-{number}",
        "subject": p.subject,
        "messages": [{"role": "user", "content": " ".join(note.sentences) + "\n" + rng.choice(QUESTIONS)},
                     {"role": "assistant", "content": answer}],
        "known": {"name": [f"{p.first} {p.last}", p.last, doctor], "address": [p.street]},
    }
    if p.number % 2 == 0:  # of the others the gate has to find the number by what stands before it
        record["known"]["id"] = [p.mrn]
    return record, note.planted


def visits(seed, first_patient, patients):
    records, planted = [], []
    staff = random.Random(f"{seed}:staff")
    doctors = [surname(staff) for _ in range(12)]
    for number in range(first_patient, first_patient + patients):
        rng = random.Random(f"{seed}:{number}")  # a patient does not change when others are added
        p = Patient(rng, number)
        for visit_number in range(1, rng.randint(4, 8) + 1):
            record, found = visit(rng, p, visit_number, rng.choice(doctors))
            records.append(record)
            planted.append({"id": record["id"], "planted": found})
    return records, planted


def write_lines(path, records):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patients", type=int, default=450)
    parser.add_argument("--heldout-patients", type=int, default=40)
    parser.add_argument("--shuffle-labels", action="store_true")
    args = parser.parse_args()

    train, train_planted = visits(args.seed, 1, args.patients)
    heldout, heldout_planted = visits(args.seed, 1 + args.patients, args.heldout_patients)
    if args.shuffle_labels:
        answers = [r["messages"][-1]["content"] for r in train]
        random.Random(f"{args.seed}:shuffle").shuffle(answers)
        for record, answer in zip(train, answers):
            record["messages"][-1]["content"] = answer
    args.output.mkdir(parents=True, exist_ok=True)
    write_lines(args.output / "visits.jsonl", train)
    write_lines(args.output / "heldout.jsonl", heldout)
    write_lines(args.output / "planted.jsonl", train_planted + heldout_planted)
    classes = sorted(answer_text(group, fresh) for group in COMPLAINTS for fresh in (True, False))
    (args.output / "answers.json").write_text(json.dumps(classes, indent=1) + "\n")
    count = sum(len(p["planted"]) for p in train_planted + heldout_planted)
    print(f"clinic: {len(train)} visits of {args.patients} patients to learn from, {len(heldout)} visits of "
          f"{args.heldout_patients} others held out, {count} identifiers planted, {len(classes)} answers"
          + (" (answers shuffled)" if args.shuffle_labels else ""))


if __name__ == "__main__":
    main()
