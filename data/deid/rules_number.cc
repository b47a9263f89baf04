// Numbers that stand for a person: by the words before them, or by their own form.
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/deid/rules.h"

namespace osler {
namespace {

std::string Ssn(std::string_view, std::string_view) { return "[SSN]"; }
std::string Mrn(std::string_view, std::string_view) { return "[MRN]"; }
std::string HealthPlan(std::string_view, std::string_view) { return "[HEALTH-PLAN]"; }
std::string Account(std::string_view, std::string_view) { return "[ACCOUNT]"; }
std::string License(std::string_view, std::string_view) { return "[LICENSE]"; }
std::string Vehicle(std::string_view, std::string_view) { return "[VEHICLE]"; }
std::string Device(std::string_view, std::string_view) { return "[DEVICE]"; }
std::string Id(std::string_view, std::string_view) { return "[ID]"; }

// Between the words and the number.
constexpr char kGap[] = "(?:[\\s:#=.,(\\[\"'-]|is |was |of |are |no\\.? |number ){0,6}";
// "number", "no.", "#", "id" after a noun that alone does not announce a number.
constexpr char kNumberWord[] =
    " {0,2}(?:id(?:entifier|entification)?s?\\b(?: "
    "?(?:no\\b\\.?|numbers?\\b|#))?|no\\b\\.?|num\\b\\.?|"
    "numbers?\\b|nr\\b\\.?|nbr\\b\\.?|codes?\\b|#|№)";

// A value with at least `digits` digits: letters, digits and inner separators, or groups of digits.
std::string Value(int digits) {
  return absl::StrCat(
      // A whole date is the date rule's, so that its year stays.
      "(?!(?:[0-9]{1,2}[/.-][0-9]{1,2}[/.-](?:19|20)[0-9]{2}|(?:19|20)[0-9]{2}[/.-][01]?[0-9][/"
      ".-][0-3]?[0-9])(?![0-9]))"
      "(?<id>[0-9]{2,4}(?: [0-9]{2,4}){1,3}(?![0-9/.,%-]|[- ]?[a-z])|(?=(?:[a-z._/*-]{0,8}[0-9]){",
      digits, "})[a-z0-9*](?:[a-z0-9._/*-]{0,38}[a-z0-9])?)(?![a-z0-9])");
}

// `words` alone announce a number.
std::string Named(std::string_view words, int digits, std::string_view prefix = "") {
  std::string pattern = "(?i)\\b(?:";
  pattern.append(words).append(")(?:").append(kNumberWord).append(")?").append(kGap).append(prefix);
  return pattern + Value(digits);
}

// `nouns` do so only with "number", "no.", "#" or "id" after them.
std::string Numbered(std::string_view nouns, int digits) {
  return absl::StrCat("(?i)\\b(?:", absl::string_view(nouns.data(), nouns.size()), ")", kNumberWord,
                      kGap, Value(digits));
}

// clang-format off: the patterns are wrapped where they can be read.

std::vector<std::string> SsnPatterns() {
  return {
      "(?<![0-9A-Za-z]|[0-9][-.])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![0-9]|-[0-9])",
      "(?<![0-9A-Za-z]|[0-9][-. ])[0-9]{3}([ .])[0-9]{2}\\g{-1}[0-9]{4}(?![0-9]|[-. ][0-9])",
      "(?i)(?<![0-9A-Za-z])[x*#]{3}[- ]?[x*#]{2}[- ]?[0-9]{4}(?![0-9])",
      "(?i)\\b(?:ssn?|s\\.s\\.n\\.?|ss ?(?:#|no\\.?|number)|soc(?:ial)?(?: sec(?:urity)?)?(?: "
      "(?:number|no\\.?|#|card))?|"
      "itin|tin|tax(?:payer)? id(?:entification)?(?: number)?)(?![a-z])[^0-9\\n\\x01]{0,24}?"
      "(?<id>[0-9](?:[- .]{0,3}[0-9]){8}(?![0-9]))",
      "(?i)\\b(?:ssn|social security(?: "
      "(?:number|no\\.?|#))?)\\b[^0-9\\n\\x01]{0,24}?(?:ending|ends|last|\\*|x)"
      "[^0-9\\n\\x01]{0,20}(?:(?:four|4|digits)[^0-9\\n\\x01]{0,16})?(?<id>[0-9]{4})(?![0-9])",
      "(?i)\\blast (?:four|4)(?: digits)?(?: of)?[^0-9\\n\\x01]{0,24}(?<id>[0-9]{4})(?![0-9])",
  };
}

std::vector<std::string> MrnPatterns() {
  return {
      Named("mrns?|m\\.r\\.n\\.?|mr ?#|med(?:ical)?\\.? rec(?:ord)?|hospital number|chart #|ehr "
            "id|emr id|"
            "patient id(?:entifier)?|pt\\.? id|pat id|epic id|csn|nhs number|nhs no\\.?|chi number",
            3),
      Numbered("mr|chart|patients?(?:'s)?|pt|hospital|unit "
               "record|record|file|accession|specimen|encounter|visit|"
               "admission|case|episode|fin|account "
               "visit|registration|lab|radiology|pathology|requisition|medical|nhs|"
               "health record|clinic|folder|dossier",
               3),
      Named("chart|record|encounter|accession|specimen|admission|episode", 5),
  };
}

std::vector<std::string> HealthPlanPatterns() {
  return {
      Named("hicn?|mbi|medicare|medicaid|beneficiary id|member id|subscriber id|policy "
            "number|health card|ohip|"
            "health plan beneficiary",
            4),
      Numbered("health "
               "?plan|plan|insurance|insurer|insured|policy|member(?:ship)?|subscriber|beneficiary|"
               "group|payer|"
               "payor|coverage|benefit|enrollee|medi-cal|medicare "
               "advantage|aetna|cigna|humana|bcbs|blue cross|"
               "blue shield|united ?healthcare|kaiser|tricare|health insurance|health",
               4),
      // Medicare beneficiary identifier
      "(?<![A-Za-z0-9])[1-9][AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9][0-9]-?[AC-HJKMNP-RT-Y][AC-HJKMNP-"
      "RT-Y0-9][0-9]-?"
      "[AC-HJKMNP-RT-Y]{2}[0-9]{2}(?![A-Za-z0-9])",
  };
}

std::vector<std::string> LicensePatterns() {
  const char* state = "(?:[a-z]{2}[ -](?=[a-z]?[0-9]))?";
  return {
      Named("driver'?s?'? licen[cs]es?|driving licen[cs]es?|driver'?s? id|licen[cs]e "
            "(?:number|no\\.?|#|id)|dl ?#|dea|"
            "passport|state id|birth certificate|death certificate",
            4, state),
      Numbered("lic(?:en[cs]e)?\\.?|licensure|cert(?:ificate|ification)?\\.?|permit|dl|"
               "registration|credential|notary",
               3),
      "(?i)\\b(?:licen[cs]es?|licensed|certificate)(?:[\\s:#=,(-]|is |was "
      "){1,4}(?<id>(?=(?:[a-z._/-]{0,4}[0-9]){4})"
      "[a-z0-9](?:[a-z0-9-]{0,24}[a-z0-9]))(?![a-z0-9])",
  };
}

std::vector<std::string> VehiclePatterns() {
  return {
      Named("vin|vehicle identification|vehicle id|chassis", 5),
      // Plates are short: with words that leave no doubt, or by their form
      "(?i)\\b(?:licen[cs]e plates?|number plates?|plate(?: (?:no\\b\\.?|number|#)|:)|vehicle "
      "registration|"
      "car registration|registration plate|vehicle tag|tag number)(?: ?(?:no\\b\\.?|number|#))?"
      "(?:[\\s:#=,(-]|is |was |reads |reading ){1,5}"
      "(?<id>(?=[a-z]{0,4}[ -]?[a-z]{0,3}[0-9])[a-z0-9]{1,8}(?:[ "
      "-](?=[a-z]{0,3}[0-9])[a-z0-9]{1,6})?"
      "(?:[ -](?-i:[A-Z]{2,3}))?|[a-z]{2,4}[ -][0-9]{2,4})(?![a-z0-9])",
      "\\b(?i:plate|tag)s?[: ]{1,2}(?i:is |reads "
      ")?(?<id>(?=[0-9]{0,4}[A-Z]{2})(?=[A-Z]{0,4}[0-9]{1,4})[A-Z0-9]{5,8}|"
      "(?=[0-9][A-Z])(?=[A-Z0-9]{0,5}[0-9]{2})[A-Z0-9]{5,8})(?![A-Za-z0-9])",
      "(?<![A-Za-z0-9-])(?=[A-HJ-NPR-Z0-9]{0,13}[A-HJ-NPR-Z]{2})(?=(?:[A-HJ-NPR-Z]{0,12}[0-9]){4})"
      "(?=(?:[0-9]{0,12}[A-HJ-NPR-Z]){3})[A-HJ-NPR-Z0-9]{17}(?![A-Za-z0-9-])",
  };
}

std::vector<std::string> DevicePatterns() {
  return {
      Named("s/n|serial|ser\\. ?no|udi|imei|meid|device identifier|mac address|icd serial", 3),
      Numbered("sn|device|implant|pacemaker|defibrillator|icd|generator|pump|monitor|prosthesis|"
               "model|glucometer|cpap|"
               "ventilator|hearing aid",
               2),
      Numbered("lead|sensor|stent|valve|lot|batch|equipment|machine|unit|part", 3),
      Named("lot|batch", 4),
      // Unique device identifier, hardware addresses
      "\\(01\\)[0-9]{14}(?:\\((?:1[017]|2[01]|11)\\)[A-Za-z0-9./-]{1,20}){0,5}",
      "(?i)(?<![0-9a-z:-])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![0-9a-z:])",
      "(?i)(?<![0-9a-z:-])(?:[0-9a-f]{2}-){5}[0-9a-f]{2}(?![0-9a-z-])",
  };
}

std::vector<std::string> AccountPatterns() {
  return {
      Named("accounts?|acct|a/c|iban|bank account|routing|swift|credit card|debit card|visa "
            "card|card number",
            4),
      Numbered("billing|invoice|bill|claim|card|payment|guarantor|financial|transaction|reference|"
               "ref|confirmation|"
               "receipt|case|order|customer|client|booking|authori[sz]ation|auth",
               4),
      "(?i)\\b(?:account|acct|card)\\b[^0-9\\n\\x01]{0,12}(?:ending|ends|last)[^0-9\\n\\x01]{0,20}("
      "?<id>[0-9]{4})(?![0-9])",
  };
}

std::vector<std::string> AccountForms() {
  return {
      // IBAN and payment cards by form; any run of twelve digits or more
      "(?i)(?<![a-z0-9])[a-z]{2}[0-9]{2} ?(?:[a-z0-9]{4} "
      "?){2,7}[a-z0-9]{1,4}(?<=[0-9]{3})(?![a-z0-9])",
      "(?<![0-9.])[0-9]{4}([ -])[0-9]{4}\\g{-1}[0-9]{4}\\g{-1}[0-9]{1,7}(?![0-9])",
      "(?<![0-9.])3[47][0-9]{2}[ -][0-9]{6}[ -][0-9]{5}(?![0-9])",
      "(?<![0-9.,])(?<!ACTRN|ISRCTN|NCT|UMIN)[0-9]{12,34}(?![0-9]|\\.[0-9])",
  };
}

std::vector<std::string> OtherNumberPatterns() {
  return {
      // UUIDs, long hexadecimal codes, runs of nine digits or more that nothing else explains
      "(?i)(?<![0-9a-z-])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-z])",
      "(?i)(?<![0-9a-z])(?=[a-f]{0,31}[0-9])(?=[0-9]{0,31}[a-f])[0-9a-f]{32,64}(?![0-9a-z])",
      "(?<![0-9.,])(?<!SNOMED |SCTID |SNOMED: |SCTID: |SNOMED CT |NCT|PMID |PMID: "
      ")[0-9]{9,11}(?![0-9]|[.,][0-9])",
      Named("uuid|guid|npi|biometric id|fingerprint id|employee id|student id|badge number|user "
            "?name",
            3),
      Numbered("employee|student|badge|staff|personnel|passport|national|identity|id "
               "card|voter|tax|visa|prisoner|"
               "inmate|military|service|veteran|donor|participant|subject|study|study "
               "subject|tissue|prescription|rx|"
               "tracking|ticket|barcode",
               4),
  };
}

// clang-format on

}  // namespace

std::vector<RuleSpec> NumberRules() {
  return {
      {"ssn", 1, Ssn, SsnPatterns()},
      {"mrn", 1, Mrn, MrnPatterns()},
      {"health_plan", 1, HealthPlan, HealthPlanPatterns()},
      {"license", 1, License, LicensePatterns()},
      {"vehicle", 1, Vehicle, VehiclePatterns()},
      {"device", 1, Device, DevicePatterns()},
      {"account", 1, Account, AccountPatterns()},
  };
}

std::vector<RuleSpec> BareNumberRules() {
  return {{"account", 1, Account, AccountForms()}, {"other_id", 1, Id, OtherNumberPatterns()}};
}

}  // namespace osler
