// The rule table of profile safe_harbor: what the gate looks for by pattern, and what it puts in
// its place.
//
// Patterns run over the shadow of a text (data/deid/shadow.h), so they need only ASCII digits, "-",
// " " and "'". A change to a pattern or a surrogate raises its rule's version: both are part of the
// policy digest.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace osler {

struct RuleSpec {
  std::string name;  // the key in reports: "date", "phone", …
  int version = 1;
  // The text that replaces `id`; `year` is the pattern's group "y", or empty.
  std::string (*surrogate)(std::string_view id, std::string_view year) = nullptr;
  // Group "id" of a pattern is what is replaced (default: the whole match).
  std::vector<std::string> patterns;
};

// Where two findings have the same extent, the earlier rule of the table names the surrogate. A
// name may stand in the table twice.
std::vector<RuleSpec> SafeHarborRules();

// The parts of the table, by subject (Safe Harbor letters in brackets).
std::vector<RuleSpec> DateRules();     // (C) dates, ages over 89
std::vector<RuleSpec> ContactRules();  // (D–F, N, O) phone, fax, e-mail, URL, IP
std::vector<RuleSpec>
NumberRules();  // (G–M, R) SSN, record, plan, account, licence, vehicle, device, other codes
std::vector<RuleSpec> PlaceRules();  // (A, B) names by title or label, street addresses, ZIP codes
// Bare digits that only their number tells: last, so that the words before a number win over its
// looks.
std::vector<RuleSpec> BarePhoneRules();
std::vector<RuleSpec> BareNumberRules();

// Three-digit ZIP areas of at most 20,000 people: the union of the lists of the 2000 census (17
// codes) and the 2010 census (14 codes). They become "000".
bool IsRestrictedZip3(std::string_view zip3);
// "2000+2010 census (19)" and the codes, for the policy digest.
std::string ZipListText();

}  // namespace osler
