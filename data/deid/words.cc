#include "data/deid/words.h"

#include <algorithm>
#include <iterator>

namespace osler {
namespace {

constexpr std::string_view kTitles[] = {"dds", "do",   "dr",    "esq", "ii",   "iii",  "iv",
                                        "jr",  "lord", "madam", "md",  "miss", "mr",   "mrs",
                                        "ms",  "mx",   "np",    "pa",  "phd",  "prof", "professor",
                                        "rev", "rn",   "sir",   "sr"};

constexpr std::string_view kParticles[] = {
    "abu",   "af",  "al",  "and", "av",  "bin", "bint", "d",   "da",  "das", "de",  "del",
    "della", "den", "der", "di",  "dos", "du",  "e",    "el",  "ibn", "la",  "las", "le",
    "lo",    "los", "of",  "ten", "ter", "the", "van",  "von", "y",   "zu",  "zum", "zur"};

constexpr std::string_view kCommon[] = {
    "able",   "ace",    "an",     "angel",    "are",    "art",     "as",     "ash",    "at",
    "bay",    "be",     "bell",   "best",     "bill",   "bird",    "black",  "blood",  "blue",
    "bond",   "booth",  "bright", "brook",    "brown",  "bush",    "by",     "can",    "care",
    "case",   "cash",   "chance", "chase",    "clay",   "close",   "cole",   "cook",   "cross",
    "day",    "dean",   "do",     "drew",     "early",  "faith",   "fall",   "field",  "fine",
    "fish",   "fly",    "ford",   "fox",      "frank",  "free",    "gay",    "gene",   "glen",
    "go",     "good",   "grace",  "grant",    "gray",   "green",   "hall",   "hand",   "hard",
    "he",     "head",   "heart",  "high",     "hill",   "holiday", "home",   "hope",   "house",
    "hunt",   "if",     "in",     "is",       "it",     "iron",    "jack",   "joy",    "just",
    "key",    "king",   "lane",   "law",      "lay",    "leg",     "light",  "little", "long",
    "love",   "low",    "man",    "mark",     "marsh",  "mason",   "may",    "me",     "moon",
    "more",   "my",     "no",     "north",    "nurse",  "on",      "or",     "pace",   "page",
    "pain",   "park",   "pat",    "patience", "penny",  "pepper",  "pill",   "pool",   "poor",
    "pope",   "porter", "power",  "price",    "pride",  "prime",   "rain",   "ray",    "read",
    "reason", "rest",   "rice",   "rich",     "ring",   "rob",     "rock",   "rose",   "ruby",
    "rush",   "sage",   "sandy",  "see",      "sharp",  "she",     "short",  "singer", "skin",
    "small",  "smart",  "snow",   "so",       "son",    "south",   "spring", "star",   "stern",
    "still",  "stone",  "storm",  "strong",   "summer", "sun",     "sweet",  "temple", "tender",
    "the",    "thin",   "to",     "true",     "trust",  "turner",  "up",     "us",     "wall",
    "ward",   "we",     "weeks",  "wells",    "west",   "white",   "will",   "winter", "wise",
    "wood",   "worth",  "young"};

template <size_t n>
bool Contains(const std::string_view (&list)[n], std::string_view word) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

}  // namespace

bool IsNameTitle(std::string_view word) { return Contains(kTitles, word); }
bool IsNameParticle(std::string_view word) { return Contains(kParticles, word); }
bool IsCommonWord(std::string_view word) { return Contains(kCommon, word); }

}  // namespace osler
