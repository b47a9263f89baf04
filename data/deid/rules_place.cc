// Names that a title or a label announces, street addresses, ZIP codes.
#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/deid/rules.h"

namespace osler {
namespace {

constexpr std::array<std::string_view, 19> kRestrictedZip3 = {
    "036", "059", "063", "102", "203", "205", "369", "556", "692", "790",
    "821", "823", "830", "831", "878", "879", "884", "890", "893"};

std::string Name(std::string_view, std::string_view) { return "[NAME]"; }
std::string Location(std::string_view, std::string_view) { return "[LOCATION]"; }

// US codes keep their three-digit area; anything else has no allowed part.
std::string Zip(std::string_view id, std::string_view) {
  const bool us =
      (id.size() == 5 || (id.size() == 10 && id[5] == '-') || id.size() == 9) &&
      std::all_of(id.begin(), id.end(), [](char c) { return (c >= '0' && c <= '9') || c == '-'; });
  if (!us) return "[ZIP]";
  const std::string_view area = id.substr(0, 3);
  return absl::StrCat("[ZIP ", IsRestrictedZip3(area) ? "000" : std::string(area), "]");
}

// clang-format off: the patterns are wrapped where they can be read.

constexpr char kStateCode[] =
    "(?:A[LKZR]|C[AOT]|D[CE]|FL|GA|GU|HI|I[ADLN]|K[SY]|LA|M[ADEHINOPST]|N[CDEHJMVY]|O[HKR]|P[ARW]|"
    "RI|S[CD]|T[NX]|UT|"
    "V[AIT]|W[AIVY]|A[AEP])";
constexpr char kStateName[] =
    "(?:Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|"
    "Hawaii|Idaho|"
    "Illinois|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|"
    "Minnesota|Mississippi|"
    "Missouri|Montana|Nebraska|Nevada|New Hampshire|New Jersey|New Mexico|New York|North "
    "Carolina|North Dakota|Ohio|"
    "Oklahoma|Oregon|Pennsylvania|Rhode Island|South Carolina|South "
    "Dakota|Tennessee|Texas|Utah|Vermont|Virginia|"
    "Washington|West Virginia|Wisconsin|Wyoming|Puerto Rico|District of Columbia)";
// Codes that are not also a degree or an all-capital word.
constexpr char kSureStateCode[] =
    "(?:A[LKZR]|C[AT]|D[CE]|FL|GA|I[ADL]|K[SY]|LA|M[AINT]|N[CDHJMVY]|O[HR]|RI|S[CD]|T[NX]|UT|V[AT]|"
    "W[AIVY])";
constexpr char kCapital[] = "[A-Z][\\p{L}'.-]{1,30}";

std::vector<std::string> NamePatterns() {
  const char* surname = "[A-Z](?:'[A-Z])?[\\p{L}-]{1,30}";  // not the possessive's "'s"
  const char* no_name =
      "(?!(?:He|She|They|The|Has|Had|Is|Was|Who|And|In|On|At|It|We|You|His|Her|This|That|There|"
      "With|For|From|To|Of|"
      "Patient|Says|Will|I|A|An|But|So|If|As|No|Not|Yes|Okay|Thank|Thanks|Please|Today|Also|Did|Do|"
      "Does|Can|Could|"
      "Would|Are|Have|When|What|How|Why|Where|MD|M\\.D|DO|PhD|RN|NP|PA|Mr|Mrs|Ms|Dr|After|Before|"
      "During|Since|"
      "Then|Now|Presents|Presented|Reports|Denies|Doctor|Nurse|Medical|Physician)\\b)";
  return {
      absl::StrCat("\\b(?:(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|MRS)\\b\\.?|(?:MR|DR)\\.)\\s{1,2}(?<id>",
                   no_name, "(?:[A-Z]\\. ?)?", surname, "(?: ", no_name, "(?:[A-Z]\\. )?", surname,
                   ")?)(?<!')"),
      absl::StrCat("(?<=[\\n\\x01]|^)[ ]{0,8}(?i:patient(?:'s)? |pt\\.? |full |legal |first |last "
                   "|maiden )?(?i:name)"
                   " {0,2}[:=] {0,3}(?<id>",
                   kCapital, "(?:,? ", kCapital, "|,? [A-Z]\\b){0,3})"),
      absl::StrCat("\\b(?i:patient(?:'s)?|pt\\.?|full|legal|my|his|her|mother's|father's|husband's|"
                   "wife's|maiden|"
                   "doctor's|physician|emergency contact|guardian) (?i:name)(?: "
                   "is|'s|\\s?[:=])\\s{1,2}(?<id>",
                   no_name, kCapital, "(?:,? ", no_name, kCapital, "|,? [A-Z]\\b){0,3})"),
      absl::StrCat("\\b(?i:emergency contact|next of kin|guardian|nok)\\s?[:=]\\s{1,2}(?<id>",
                   no_name, kCapital, "(?:,? ", no_name, kCapital, "|,? [A-Z]\\b){1,3})"),
  };
}

std::vector<std::string> AddressPatterns() {
  const char* number = "(?<![0-9.,/$#-])[0-9]{1,6}(?:-[0-9]{1,4}|[A-Za-z])?";
  const char* heading = "(?:(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\\b\\.? )?";
  const char* suffix =
      "(?:Street|St|Avenue|Ave|Av|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Circle|Cir|"
      "Place|Pl|Terrace|Ter|"
      "Way|Parkway|Pkwy|Highway|Hwy|Square|Sq|Trail|Trl|Alley|Crescent|Plaza|Turnpike|Close|Mews|"
      "Esplanade|Grove|"
      "STREET|ST|AVENUE|AVE|ROAD|RD|BOULEVARD|BLVD|LANE|LN|DRIVE|DR|COURT|CT|PLACE|PARKWAY|HIGHWAY)"
      "\\b(?!\\. [A-Z][a-z])";
  const char* unit =
      "(?:\\.?,?\\s{1,2}(?i:apt|apartment|suite|ste|unit|floor|fl|room|rm|building|bldg|#)[.#]?"
      " {0,2}#?"
      "[A-Za-z]?[0-9]{0,5}[A-Za-z]?\\b)?";
  const std::string city =
      absl::StrCat("(?:\\.?,?\\s{1,2}(?:", kCapital, "(?: ", kCapital,
                   "){0,2})(?=,\\s{0,2}(?:", kStateCode, "\\b|", kStateName, "\\b)))?");
  return {
      absl::StrCat(number, "\\s{1,2}", heading, "(?:", kCapital,
                   "|[0-9]{1,3}(?:st|nd|rd|th|ST|ND|RD|TH))(?:\\s{1,2}", kCapital, "){0,3}\\s{1,2}",
                   suffix, "\\.?(?: (?:N|S|E|W|NE|NW|SE|SW)\\b\\.?)?", unit, city),
      absl::StrCat(
          "(?i)", number,
          " (?!(?:the|on|in|of|down|across|a|to|blocks?|miles?|cross|up|along|off|from|at|and|or|"
          "by|mg|times|x|year|years|more|other|main)\\b)(?:[\\p{L}'-]{2,30} "
          "){1,2}(?:street|avenue|boulevard|"
          "lane|road|drive)\\b(?! (?:test|rash))",
          unit),
      absl::StrCat("(?i)", number, " main (?:street|st|road|rd|avenue|ave)\\b", unit),
      absl::StrCat(number,
                   " (?i:state route|county road|route|highway|hwy|interstate|rural "
                   "route|fm|sr|cr) [0-9]{1,4}\\b",
                   unit),
      "(?i)\\bp\\.? ?o\\.? ?box (?:no\\.? |# ?)?[0-9]{1,8}\\b",
      "(?i)\\b(?:apt|apartment|suite|ste)\\b\\.? ?#? ?[a-z]?[0-9]{1,5}[a-z]?\\b",
      // Boston, MA 02139; Boston, Massachusetts; Boston, MA
      absl::StrCat("\\b(?<id>[A-Z][\\p{L}'.]{1,24}(?:[ -][A-Z][\\p{L}'.]{1,24}){0,2})(?=,? {1,2}",
                   kStateCode, ",?\\s{1,3}[0-9]{5}\\b)"),
      absl::StrCat("\\b(?!", kStateName,
                   "\\b)(?<id>[A-Z][\\p{L}']{1,24}(?:[ -][A-Z][\\p{L}']{1,24}){0,2})(?=, {0,2}(?:",
                   kStateName, "|", kSureStateCode, ")\\b(?!-))"),
  };
}

std::vector<std::string> ZipPatterns() {
  return {
      "(?<![0-9.-])[0-9]{5}-[0-9]{4}(?![0-9]|-[0-9])",
      absl::StrCat("\\b(?:", kStateCode, "|", kStateName,
                   ")\\b[.,]?\\s{1,3}(?<id>[0-9]{5})(?![0-9]|[.,][0-9]|-[0-9])"),
      "(?i)(?<!\\[)\\bzip(?: ?\\+ ?4)?(?: ?codes?)?\\b(?:[\\s:#=,(-]|is |was |of "
      "){1,4}(?<id>[0-9]{5}(?:-?[0-9]{4})?)(?![0-9])",
      "(?i)(?<!\\[)\\b(?:zip(?: ?codes?)?|post ?codes?|postal codes?|plz|cep)\\b(?:[\\s:#=,(-]|is "
      "|was |of "
      "){1,4}"
      "(?<id>(?=[a-z]{0,3}[0-9])[a-z0-9]{2,8}(?:[ -](?=[a-z]{0,3}[0-9])[a-z0-9]{2,4})?(?: "
      "(?-i:[A-Z]{2}))?)(?![a-z0-9])",
  };
}

// clang-format on

}  // namespace

bool IsRestrictedZip3(std::string_view zip3) {
  return std::find(kRestrictedZip3.begin(), kRestrictedZip3.end(), zip3) != kRestrictedZip3.end();
}

std::string ZipListText() {
  std::string text = "2000+2010 census (19):";
  for (const std::string_view code : kRestrictedZip3) text.append(" ").append(code);
  return text;
}

std::vector<RuleSpec> PlaceRules() {
  return {
      {"name", 1, Name, NamePatterns()},
      {"address", 1, Location, AddressPatterns()},
      {"zip", 1, Zip, ZipPatterns()},
  };
}

}  // namespace osler
