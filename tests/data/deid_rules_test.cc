// Identifiers planted in every written form the rules know, and medicine that must stay.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/data/deid_text.h"

namespace osler::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Planted {
  std::string rule, sentence;  // "@" stands for each of the values
  std::vector<std::string> values;
};

// clang-format off
std::vector<Planted> PlantedIdentifiers() {
  return {
      {"date", "Seen on @ in clinic.", {"03/14/2019", "3/14/19", "03-14-2019", "3-14-19", "03.14.2019", "14.03.2019", "14/03/2019", "2019-03-14", "2019/03/14", "2019.03.14", "20190314", "2019-03-14T10:22:05Z", "2019-03-14 10:22:05", "2019-03-14T10:22:05.123+01:00", "March 14, 2019", "March 14th, 2019", "Mar. 14, 2019", "MARCH 14 2019", "14 March 2019", "14th of March, 2019", "14-Mar-2019", "14Mar2019", "14MAR19", "14-MAR-19", "Mar 14", "March 14th", "the 14th of March", "March 2019", "03/2019", "2019-03", "03/14", "3/14", "Thursday, March 14, 2019", "Thu Mar 14 2019", "Sept 3, 2020", "Sept. 3rd 2020", "3 / 14 / 2019", "14.03.19", "December 1", "1 December", "May 5, 2020", "May 5", "5 May 2020", "may 5th", "March 3-5, 2021", "July 4th", "twenty-first of June", "３/１４/２０１９", "2019‑03‑14", "2019–03–14", "March\n14, 2019", "March '19", "Mar-19", "Christmas Eve", "20190314102205", "march 3rd", "14th March", "8/5/1989", "Feb. 29, 2020", "the 3rd of May, 2019", "Jan-03-2020", "03-Jan"}},
      {"date", "DOB: @.", {"3/14/1950", "03141950", "1950-03-14", "031450", "14 03 1950", "March 14, 1921"}},
      {"date", "He was born in @ and", {"1921", "March", "March 1950"}},
      {"age", "Her @ aunt came.", {"hundred-and-two year old"}},
      {"age", "A @ woman came.", {"92-year-old", "92 year old", "92 y/o", "92yo", "92 y.o.", "92-yr-old", "101-year-old", "90-year-old", "99 years old", "103 yr old", "ninety-two-year-old", "ninety year old"}},
      {"age", "The patient is aged @, stable.", {"93", "101"}},
      {"age", "Age: @. ", {"93", "101", "90"}},
      {"age", "Patient age @ ", {"93", "101"}},
      {"age", "She is @ and lives alone.", {"93"}},
      {"age", "She turned @ last week.", {"93"}},
      {"age", "at @ years of age", {"93", "104"}},
      {"age", "Patient @ with chest pain", {"92F", "93M", "93 F"}},
      {"age", "Celebrated her @ birthday", {"95th", "100th"}},
      {"phone", "Call @ now.", {"(617) 555-0100", "617-555-0100", "617.555.0100", "617 555 0100", "+1 617 555 0100", "1-617-555-0100", "6175550100", "(617)555-0100", "617-555-0100 ext. 123", "617-555-0100x45", "+44 20 7946 0958", "+447700 921 916", "+46 (0)8 928 571 38", "07700 063 966", "0490 75 40 81", "01.84.17.61.18", "011 44 20 7946 0958", "0044 20 7946 0958", "555-0100", "+1.617.555.0100", "+16175550100", "617–555–0100", "617‑555‑0100", "(617) 555‑0100", "867-5309", "+49 30 901820", "１６１７５５５０１００"}},
      {"phone", "Phone: @", {"(617) 555-0100", "617-555-0100", "617.555.0100", "617 555 0100", "+1 617 555 0100", "1-617-555-0100", "6175550100", "(617)555-0100", "617-555-0100 ext. 123", "617-555-0100x45", "+44 20 7946 0958", "+447700 921 916", "+46 (0)8 928 571 38", "07700 063 966", "0490 75 40 81", "01.84.17.61.18", "011 44 20 7946 0958", "0044 20 7946 0958", "555-0100", "+1.617.555.0100", "+16175550100", "617–555–0100", "617‑555‑0100", "(617) 555‑0100", "867-5309", "+49 30 901820", "１６１７５５５０１００"}},
      {"phone", "tel @ (home)", {"(617) 555-0100", "617-555-0100", "617.555.0100", "617 555 0100", "+1 617 555 0100", "1-617-555-0100", "6175550100", "(617)555-0100", "617-555-0100 ext. 123", "617-555-0100x45", "+44 20 7946 0958", "+447700 921 916", "+46 (0)8 928 571 38", "07700 063 966", "0490 75 40 81", "01.84.17.61.18", "011 44 20 7946 0958", "0044 20 7946 0958", "555-0100", "+1.617.555.0100", "+16175550100", "617–555–0100", "617‑555‑0100", "(617) 555‑0100", "867-5309", "+49 30 901820", "１６１７５５５０１００"}},
      {"phone", "Reach him at @.", {"(617) 555-0100", "617-555-0100", "617.555.0100", "617 555 0100", "+1 617 555 0100", "1-617-555-0100", "6175550100", "(617)555-0100", "617-555-0100 ext. 123", "617-555-0100x45", "+44 20 7946 0958", "+447700 921 916", "+46 (0)8 928 571 38", "07700 063 966", "0490 75 40 81", "01.84.17.61.18", "011 44 20 7946 0958", "0044 20 7946 0958", "555-0100", "+1.617.555.0100", "+16175550100", "617–555–0100", "617‑555‑0100", "(617) 555‑0100", "867-5309", "+49 30 901820", "１６１７５５５０１００"}},
      {"phone", "cell @", {"8675309", "867 5309"}},
      {"fax", "Fax: @", {"617-555-0199", "(617) 555-0199", "+1 617 555 0199", "555-0199"}},
      {"fax", "fax number is @", {"617-555-0199"}},
      {"fax", "faxed to @.", {"617 555 0199"}},
      {"email", "Mail @.", {"john.smith@example.com", "JOHN@EXAMPLE.ORG", "j_s+x@mail.example.co.uk", "josé@exämple.de", "john@sub.example.health", "john (at) example (dot) com", "john[at]example.com", "o'brien@example.com"}},
      {"ssn", "His SSN is @.", {"123-45-6789", "123 45 6789", "123456789", "123.45.6789", "XXX-XX-6789", "***-**-6789"}},
      {"ssn", "number @ on file", {"123-45-6789", "123 45 6789"}},
      {"ssn", "SSN ending in @", {"6789"}},
      {"ssn", "last four of SSN: @", {"6789"}},
      {"ssn", "Social Security number: @", {"123-45-6789", "123456789"}},
      {"mrn", "MRN: @ was seen", {"445566", "00445566", "MR-445566", "A1234567", "12-34-56", "H0012345"}},
      {"mrn", "MRN @ was seen", {"445566", "00445566", "MR-445566", "A1234567", "12-34-56", "H0012345"}},
      {"mrn", "MRN#@ was seen", {"445566", "00445566", "MR-445566", "A1234567", "12-34-56", "H0012345"}},
      {"mrn", "medical record number @ was seen", {"445566", "00445566", "MR-445566", "A1234567", "12-34-56", "H0012345"}},
      {"mrn", "Medical Record No. @ was seen", {"445566", "00445566", "MR-445566", "A1234567", "12-34-56", "H0012345"}},
      {"mrn", "MRN is @ was seen", {"445566", "00445566", "MR-445566", "A1234567", "12-34-56", "H0012345"}},
      {"mrn", "Patient ID: @ was seen", {"445566", "00445566", "MR-445566", "A1234567", "12-34-56", "H0012345"}},
      {"mrn", "Chart number @ was seen", {"445566", "00445566", "MR-445566", "A1234567", "12-34-56", "H0012345"}},
      {"mrn", "(MRN @) was seen", {"445566", "00445566", "MR-445566", "A1234567", "12-34-56", "H0012345"}},
      {"mrn", "Hospital number: @ was seen", {"445566", "00445566", "MR-445566", "A1234567", "12-34-56", "H0012345"}},
      {"mrn", "mrn=@ was seen", {"445566", "00445566", "MR-445566", "A1234567", "12-34-56", "H0012345"}},
      {"account", "Account number: @", {"998877", "AC-998877", "1234-5678-9012-3456", "9988776655"}},
      {"account", "Acct # @", {"998877", "AC-998877", "1234-5678-9012-3456", "9988776655"}},
      {"account", "account no. @", {"998877", "AC-998877", "1234-5678-9012-3456", "9988776655"}},
      {"account", "Account @", {"998877", "AC-998877", "1234-5678-9012-3456", "9988776655"}},
      {"account", "Billing number @", {"998877", "AC-998877", "1234-5678-9012-3456", "9988776655"}},
      {"account", "card @", {"4111 1111 1111 1111", "4007070753690781"}},
      {"account", "IBAN @", {"GB56HXDO88167774656119", "DE89 3704 0044 0532 0130 00"}},
      {"license", "Driver's license: @", {"D1234567", "S99988801", "A12-345-678", "F162823540116"}},
      {"license", "License number @", {"D1234567", "S99988801", "A12-345-678", "F162823540116"}},
      {"license", "DL# @", {"D1234567", "S99988801", "A12-345-678", "F162823540116"}},
      {"license", "driver’s license number is @", {"D1234567", "S99988801", "A12-345-678", "F162823540116"}},
      {"license", "license no @", {"D1234567", "S99988801", "A12-345-678", "F162823540116"}},
      {"license", "Licence: @", {"D1234567", "S99988801", "A12-345-678", "F162823540116"}},
      {"license", "DEA number @", {"D1234567", "S99988801", "A12-345-678", "F162823540116"}},
      {"device", "Serial number @", {"PM-99871", "SN12345678", "ABC123456", "99887766"}},
      {"device", "S/N @", {"PM-99871", "SN12345678", "ABC123456", "99887766"}},
      {"device", "Device serial no. @", {"PM-99871", "SN12345678", "ABC123456", "99887766"}},
      {"device", "pacemaker serial number: @", {"PM-99871", "SN12345678", "ABC123456", "99887766"}},
      {"device", "device ID @", {"PM-99871", "SN12345678", "ABC123456", "99887766"}},
      {"device", "serial #@", {"PM-99871", "SN12345678", "ABC123456", "99887766"}},
      {"device", "Lot number @", {"PM-99871", "SN12345678", "ABC123456", "99887766"}},
      {"health_plan", "Health plan ID: @", {"XYZ123456789", "1EG4-TE5-MK73", "W123456789", "445-66-7788A"}},
      {"health_plan", "Member ID @", {"XYZ123456789", "1EG4-TE5-MK73", "W123456789", "445-66-7788A"}},
      {"health_plan", "Policy number @", {"XYZ123456789", "1EG4-TE5-MK73", "W123456789", "445-66-7788A"}},
      {"health_plan", "Insurance ID # @", {"XYZ123456789", "1EG4-TE5-MK73", "W123456789", "445-66-7788A"}},
      {"health_plan", "Medicare number @", {"XYZ123456789", "1EG4-TE5-MK73", "W123456789", "445-66-7788A"}},
      {"health_plan", "Subscriber ID: @", {"XYZ123456789", "1EG4-TE5-MK73", "W123456789", "445-66-7788A"}},
      {"health_plan", "Medicaid @", {"XYZ123456789", "1EG4-TE5-MK73", "W123456789", "445-66-7788A"}},
      {"health_plan", "Group number: @", {"XYZ123456789", "1EG4-TE5-MK73", "W123456789", "445-66-7788A"}},
      {"health_plan", "health plan beneficiary number @", {"XYZ123456789", "1EG4-TE5-MK73", "W123456789", "445-66-7788A"}},
      {"vehicle", "VIN @", {"1HGCM82633A004352"}},
      {"vehicle", "drives @ now", {"1HGCM82633A004352"}},
      {"vehicle", "License plate @", {"ABC-1234", "7ABC123", "ABC 1234", "8XYZ 99"}},
      {"vehicle", "license plate: @", {"ABC-1234", "7ABC123", "ABC 1234", "8XYZ 99"}},
      {"vehicle", "plate number @", {"ABC-1234", "7ABC123", "ABC 1234", "8XYZ 99"}},
      {"vehicle", "licence plate is @", {"ABC-1234", "7ABC123", "ABC 1234", "8XYZ 99"}},
      {"url", "See @ for more.", {"https://example.com/a/b?x=1", "http://www.example.org", "www.example.com", "example.com", "portal.example.org/patient/123", "ftp://files.example.net/x", "HTTPS://Example.COM/Path"}},
      {"ip", "from @ today", {"192.168.1.10", "10.0.0.1", "2001:db8::1", "2001:0db8:85a3:0000:0000:8a2e:0370:7334", "fe80::1ff:fe23:4567:890a", "192.168.1.10:8080"}},
      {"zip", "ZIP @", {"02139", "02139-4307"}},
      {"zip", "zip code: @", {"90210"}},
      {"zip", "somewhere in MA @", {"02139", "02139-4307"}},
      {"zip", "lives in Ohio @", {"44101"}},
      {"address", "Lives at @.", {"123 Main Street", "123 Main St", "45 W. Oak Ave", "1600 Pennsylvania Avenue NW", "12 Elm Rd, Apt 4B", "77 Massachusetts Ave", "5 North Maple Drive", "221B Baker Street", "9 42nd Street", "123 main street", "P.O. Box 1234", "PO Box 99", "742 Evergreen Terrace", "10 Martin Luther King Jr Blvd"}},
      {"other_id", "device @ ok", {"123e4567-e89b-12d3-a456-426614174000"}},
  };
}

// Short forms as notes have them, with the whole result.
std::vector<std::pair<std::string, std::string>> Shorthand() {
  return {
      {"acct no: 5543", "acct no: [ACCOUNT]"},
      {"Acct. #4432", "Acct. #[ACCOUNT]"},
      {"Lic. # RN-44321", "Lic. # [LICENSE]"},
      {"Lic# 44321", "Lic# [LICENSE]"},
      {"driver license TX 12345678", "driver license TX [LICENSE]"},
      {"driver's license: TX-12345678", "driver's license: [LICENSE]"},
      {"pacemaker S/N: PM-5512-A", "pacemaker S/N: [DEVICE]"},
      {"device SN#8827-XY", "device SN#[DEVICE]"},
      {"Device serial: SN-12345", "Device serial: [DEVICE]"},
      {"device id PX-4432", "device id [DEVICE]"},
      {"Device identifier: DEV-99", "Device identifier: [DEVICE]"},
      {"MRN-1234567", "MRN-[MRN]"},
      {"mrn1234567", "mrn[MRN]"},
      {"MRN: #1234567", "MRN: #[MRN]"},
      {"MR# 12345", "MR# [MRN]"},
      {"Med Rec #: 12345", "Med Rec #: [MRN]"},
      {"Patient no. 12345", "Patient no. [MRN]"},
      {"chart 12345", "chart [MRN]"},
      {"Record 12345678", "Record [MRN]"},
      {"tel: 555.123.4567", "tel: [PHONE]"},
      {"T: (555) 123-4567", "T: [PHONE]"},
      {"Ph. 555 1234", "Ph. [PHONE]"},
      {"pager #12345", "pager #[PHONE]"},
      {"pager 12345", "pager [PHONE]"},
      {"(ext 4432)", "(ext [PHONE])"},
      {"call x4432", "call [PHONE]"},
      {"call 5-1234", "call [PHONE]"},
      {"mailto:a@b.com", "mailto:[EMAIL]"},
      {"zip=94110", "zip=[ZIP 941]"},
      {"zipcode 94110-1234", "zipcode [ZIP 941]"},
      {"seen at 94110-1234", "seen at [ZIP 941]"},
      {"age 91 y", "age [AGE 90+] y"},
      {"91 y/o M", "[AGE 90+] y/o M"},
      {"91-y.o. man", "[AGE 90+]-y.o. man"},
      {"91 y F", "[AGE 90+] y F"},
      {"aged ninety one", "aged [AGE 90+]"},
      {"91 yr female", "[AGE 90+] yr female"},
      {"91yrs old", "[AGE 90+]yrs old"},
      {"91-year old", "[AGE 90+]-year old"},
      {"102 years young", "[AGE 90+] years young"},
      {"a 91 y old", "a [AGE 90+] y old"},
      {"in his nineties", "in his [AGE 90+]"},
      {"91 years-old", "[AGE 90+] years-old"},
      {"91yo M", "[AGE 90+]yo M"},
      {"age = 91", "age = [AGE 90+]"},
      {"Age 91", "Age [AGE 90+]"},
      {"Age: 91 yrs", "Age: [AGE 90+] yrs"},
      {"Age:91", "Age:[AGE 90+]"},
      {"age of ninety-three", "age of [AGE 90+]"},
      {"pt is 94.", "pt is [AGE 90+]."},
      {"born 03/04/1928", "born [DATE]"},
      {"born in 1925", "born in [DATE]"},
      {"6/3/19 @ 10:00", "[DATE 2019] @ 10:00"},
      {"2019/6/3", "[DATE 2019]"},
      {"seen 06-03 in ER", "seen [DATE] in ER"},
      {"Jun 3 '19", "[DATE 2019]"},
      {"June '19", "[DATE 2019]"},
      {"June of 2019", "[DATE 2019]"},
      {"the week of 6/3", "the week of [DATE]"},
      {"from 6/3-6/7", "from [DATE]-[DATE]"},
      {"6/3-6/7/2019", "[DATE]-[DATE 2019]"},
      {"on 3-Jun", "on [DATE]"},
      {"3Jun19", "[DATE 2019]"},
      {"3.6.2019", "[DATE 2019]"},
      {"1st of January", "[DATE]"},
      {"New Year's Day 2020", "[DATE] 2020"},
      {"20190603T101500", "[DATE 2019]"},
      {"at 1559520000", "at [ID]"},
      {"on 12/25", "on [DATE]"},
      {"25/12/2019", "[DATE 2019]"},
      {"2019年3月14日", "[DATE 2019]"},
      {"certificate number CERT-4455", "certificate number [LICENSE]"},
      {"Cert# 8812345", "Cert# [LICENSE]"},
      {"certificate no. 12-3456", "certificate no. [LICENSE]"},
      {"DEA BS1234563", "DEA [LICENSE]"},
      {"NPI 1234567890", "NPI [ID]"},
      {"NPI: 1234567893", "NPI: [ID]"},
      {"Passport C01234567", "Passport [LICENSE]"},
      {"passport no. 123456789", "passport no. [LICENSE]"},
      {"account ending in 4432", "account ending in [ACCOUNT]"},
      {"account: 12345678", "account: [ACCOUNT]"},
      {"credit card 4111-1111-1111-1111", "credit card [ACCOUNT]"},
      {"Visa 4111111111111111", "Visa [ACCOUNT]"},
      {"policy # HMO-99-1234", "policy # [HEALTH-PLAN]"},
      {"insurance ID ABC123456", "insurance ID [HEALTH-PLAN]"},
      {"Medicare ID 123-45-6789-A", "Medicare ID [HEALTH-PLAN]"},
      {"IMEI 356938035643809", "IMEI [DEVICE]"},
      {"VIN: 1FTFW1ET5DFC10312", "VIN: [VEHICLE]"},
      {"plate 7ABC123", "plate [VEHICLE]"},
      {"tag number XYZ 123", "tag number [VEHICLE]"},
      {"lot # A12B34", "lot # [DEVICE]"},
      {"serial number: 1234", "serial number: [DEVICE]"},
      {"Serial# 998-XA-12", "Serial# [DEVICE]"},
      {"implant serial AB1234", "implant serial [DEVICE]"},
      {"http://hosp.org/p?id=3)", "[URL])"},
      {"(see https://x.y.org/a_(b))", "(see [URL]))"},
      {"foo.bar@baz.museum", "[EMAIL]"},
      {"192.168.001.001", "[IP]"},
      {"10.0.0.1:8080", "[IP]"},
      {"::1", "[IP]"},
      {"fe80::1", "[IP]"},
      {"IPv6 2001:DB8:0:0:8:800:200C:417A", "IPv6 [IP]"},
      {"SSN#: 123-45-6789", "SSN#: [SSN]"},
      {"SSN 123-456-789", "SSN [SSN]"},
      {"SS# 123456789", "SS# [SSN]"},
      {"soc sec 123-45-6789", "soc sec [SSN]"},
      {"His social is 123-45-6789", "His social is [SSN]"},
      {"ssn:123456789", "ssn:[SSN]"},
      {"lives in Cambridge, MA 02138", "lives in [LOCATION], MA [ZIP 021]"},
      {"Cambridge MA 02138", "[LOCATION] MA [ZIP 021]"},
      {"Zip 036", "Zip [ZIP]"},
      {"12 Elm St.", "[LOCATION]"},
      {"12 Elm St, Springfield, IL 62704", "[LOCATION], IL [ZIP 627]"},
      {"12345 State Route 9", "[LOCATION]"},
      {"Apt 4B, 12 Oak Lane", "[LOCATION], [LOCATION]"},
      {"fax (555)123-4568", "fax [FAX]"},
      {"f: 555-123-4568", "f: [PHONE]"},
      {"FAX: +1-555-123-4568", "FAX: [FAX]"},
      {"Call me at 555 1234", "Call me at [PHONE]"},
      {"my number is 5551234", "my number is [PHONE]"},
      {"home phone 555-1234", "home phone [PHONE]"},
      {"555-1234", "[PHONE]"},
      {"number 867-5309", "number [PHONE]"},
      {"study ID 4411", "study ID [ID]"},
      {"encounter 99887766", "encounter [MRN]"},
      {"Encounter #99887766", "Encounter #[MRN]"},
      {"accession 2019-44321", "accession [MRN]"},
      {"Accession: S19-12345", "Accession: [MRN]"},
      {"specimen # S-19-4432", "specimen # [MRN]"},
      {"case number 19-4432", "case number [MRN]"},
      {"claim no 4432-19", "claim no [ACCOUNT]"},
  };
}

std::vector<std::string> Medicine() {
  return {
      "BP 120/80 mmHg, HR 72.",
      "pain 5/10 today",
      "take 1/2 tablet daily",
      "3.5 mg po q12h",
      "T1-T2 level",
      "available 24/7",
      "CD4 count 350, viral load 20,000",
      "follow up in 2-3 days",
      "ICD-10 E11.9, I10, Z79.4",
      "in 2015 she had surgery",
      "history of MI in 2009 and CABG in 2012",
      "4/5 strength bilaterally, 2/6 systolic murmur",
      "glucose 100-140 mg/dL",
      "WBC 12.5, Hgb 9.8, platelets 250,000",
      "creatinine 1.2 (0.7-1.3)",
      "EF 55-60%",
      "65-year-old male",
      "89-year-old woman",
      "aged 65 to 89 years",
      "age 45",
      "5'10\", 180 lbs",
      "O2 sat 98% on 2L",
      "temp 98.6 F, 101.2 F",
      "L4-L5 disc, C5-6",
      "insulin 10 units at 10:30",
      "metformin 500-1000 mg BID",
      "dose 500 mg x 10 days",
      "1-2 tablets every 4-6 hours",
      "heparin 5000 units",
      "p < 0.05, 95% CI 1.2-3.4",
      "n = 120 patients",
      "Dr. X saw her",
      "phase 2/3 trial",
      "visual acuity 20/20, 20/40",
      "GCS 15, NIHSS 3",
      "Apgar 8/9",
      "G2P1, 38 weeks",
      "HbA1c 7.2 to 6.8",
      "Na 140 K 4.2 Cl 102 CO2 24 BUN 12",
      "seen 3 times in 2 weeks",
      "MRI T2 FLAIR",
      "stage IIIB, pT1N0M0",
      "sodium 135-145",
      "ratio 2:1 and 10:30 AM",
      "5.10.15 mg titration",
      "vitamin B12 1000 mcg",
      "factor VIII; CYP2D6",
      "HER2/neu 3+",
      "may 5 mg be given",
      "he may have 3 doses",
      "the patient is 75 and well",
      "her pulse is 92 and regular",
      "BP 150/95",
      "weight is 92 kg",
      "92% oxygen",
      "heart rate 92",
      "over the past 92 days",
      "IgG 1200-1500",
      "call if temp over 100.4 or pain for 24 hours",
      "take with 8 oz water, call 911",
      "in 3/4 of cases",
      "improved by 1/3",
      "1,25-dihydroxyvitamin D",
      "dilution 1/100",
      "p53, IL-6, TNF-alpha, OCT4, SEPT9",
      "March of Dimes",
      "10-20 mg",
      "range 200-1000 ng/mL",
      "500-1000 mL/day",
      "2000-3000 calories",
      "steps 1000-2000",
      "between 250-1000 cells",
      "5000 IU",
      "90 mg",
      "90 days",
      "lasted 95 minutes",
      "up to 100 mg",
      "0.9% saline 1000 mL",
      "BMI 32.1",
      "FEV1 1.8 L (65% predicted)",
      "INR 2-3",
      "PT/INR 12.3/1.1",
      "ST elevation in V2-V4",
      "q4-6h prn",
      "Room 5? bed 3",
      "5 of 10 patients (50%)",
      "12 patients (3.4%)",
      "sensitivity 92.3% and specificity 88.1%",
      "mean age 45.3 years",
      "aged 18-65 years",
      "ages 5 to 12",
      "(OR 1.45; 95% CI 1.10-1.91)",
      "10^9/L, 5×10⁹/L",
      "2019",
      "in 2019-2020",
      "from 1990 to 2005",
  };
}
// clang-format on

std::string WithoutSurrogates(const std::string& text) {
  return std::regex_replace(text, std::regex(R"(\[[A-Z-]+( [0-9+]+)?\])"), "");
}

// Words and numbers of two characters or more that would tell something.
std::vector<std::string> TellingParts(const std::string& value) {
  static const std::set<std::string> kHarmless = {"year", "old", "yr",    "yo",  "of",
                                                  "the",  "at",  "years", "com", "org"};
  std::vector<std::string> parts;
  const std::regex word("[A-Za-z0-9]{2,}");
  for (std::sregex_iterator it(value.begin(), value.end(), word), end; it != end; ++it) {
    if (!kHarmless.contains(it->str())) parts.push_back(it->str());
  }
  return parts;
}

TEST(DeidRules, PlantedIdentifiersGoAndTheSentenceStays) {
  std::map<std::string, int> planted, named;
  for (const Planted& row : PlantedIdentifiers()) {
    const size_t at = row.sentence.find('@');
    for (const std::string& value : row.values) {
      std::string text = row.sentence;
      text.replace(at, 1, value);
      RuleCounts counts;
      const std::string clean = Clean(text, {}, &counts);
      ++planted[row.rule];
      named[row.rule] += counts[row.rule] > 0 ? 1 : 0;
      EXPECT_NE(clean, text);
      EXPECT_THAT(clean, StartsWith(row.sentence.substr(0, at)));
      const std::string rest = WithoutSurrogates(clean);
      for (const std::string& part : TellingParts(value)) {
        EXPECT_FALSE(std::regex_search(rest, std::regex("\\b" + part + "\\b")))
            << text << " → " << clean;
      }
    }
  }
  // By rule: all of them found, and nearly all under the rule that a reader would name.
  for (const auto& [rule, count] : planted) {
    std::printf("%-12s planted %3d, under this rule %3d\n", rule.c_str(), count, named[rule]);
    EXPECT_GE(named[rule], count * 9 / 10) << rule;
  }
}

TEST(DeidRules, ShorthandOfNotes) {
  for (const auto& [text, expected] : Shorthand()) EXPECT_EQ(Clean(text), expected) << text;
}

TEST(DeidRules, MedicineStaysByteForByte) {
  for (const std::string& text : Medicine()) EXPECT_EQ(Clean(text), text);
}

TEST(DeidRules, DatesKeepTheirYear) {
  EXPECT_EQ(Clean("on 3/14/19"), "on [DATE 2019]");
  EXPECT_EQ(Clean("on 3/14/87"), "on [DATE 1987]");
  EXPECT_EQ(Clean("March 14th, 2019"), "[DATE 2019]");
  EXPECT_EQ(Clean("2019-03-14T10:22:05Z"), "[DATE 2019]");
  EXPECT_EQ(Clean("March 3-5, 2021"), "[DATE 2021]");
  EXPECT_EQ(Clean("on 3/14"), "on [DATE]");
  EXPECT_EQ(Clean("in 2015 and since 2019"), "in 2015 and since 2019");
  // A year that tells of an age over 89 goes as well.
  EXPECT_EQ(Clean("DOB: 3/14/1921, born in 1921"), "DOB: [DATE], born in [DATE]");
}

TEST(DeidRules, AgesOver89KeepTheGrammar) {
  EXPECT_EQ(Clean("a 92-year-old woman, aged 93"), "a [AGE 90+]-year-old woman, aged [AGE 90+]");
  EXPECT_EQ(Clean("an 89-year-old woman, aged 85"), "an 89-year-old woman, aged 85");
  EXPECT_EQ(Clean("age: 101"), "age: [AGE 90+]");
}

TEST(DeidRules, ZipKeepsAllowedAreas) {
  EXPECT_EQ(Clean("zip 02139-4307"), "zip [ZIP 021]");
  for (const char* area : {"036", "059", "063", "102", "203", "205", "369", "556", "692", "790",
                           "821", "823", "830", "831", "878", "879", "884", "890", "893"}) {
    EXPECT_EQ(Clean(std::string("ZIP: ") + area + "12"), "ZIP: [ZIP 000]");
  }
  EXPECT_EQ(Clean("lives in Boston, MA 02139"), "lives in [LOCATION], MA [ZIP 021]");
}

TEST(DeidRules, WhatReadersTakeForTheSameCharacterIsTheSame) {
  EXPECT_EQ(Clean("tel ６１７－５５５－０１００"), "tel [PHONE]");
  EXPECT_EQ(Clean("tel 617\u2011555\u20110100"), "tel [PHONE]");  // non-breaking hyphens
  EXPECT_EQ(Clean("SSN 123\u200B-45\u00AD-6789"), "SSN [SSN]");   // zero-width space, soft hyphen
  EXPECT_EQ(Clean("SSN ١٢٣-٤٥-٦٧٨٩"), "SSN [SSN]");               // Arabic-Indic digits
  EXPECT_EQ(Clean("seen 2019\u00B703\u00B714 5×10⁹/l"), "seen 2019\u00B703\u00B714 5×10⁹/l");
  EXPECT_EQ(Clean("mail john＠example．com"), "mail [EMAIL]");
}

TEST(DeidRules, OneSurrogateOverOverlaps) {
  RuleCounts counts;
  EXPECT_EQ(Clean("http://192.168.1.10/a?mail=x@example.com", {}, &counts), "[URL]");
  EXPECT_EQ(counts["url"], 1);
  EXPECT_EQ(counts["ip"] + counts["email"], 0);
}

TEST(DeidRules, SurrogatesAreLeftAlone) {
  const std::string text =
      "[NAME-1], [AGE 90+]-year-old, seen [DATE 2019], zip [ZIP 021], MRN [MRN], call [PHONE] or "
      "[FAX], [EMAIL] [SSN]";
  EXPECT_EQ(Clean(text), text);
  EXPECT_EQ(Clean(Clean("Aged 92, MRN 445566, 3/14/2019")),
            Clean("Aged 92, MRN 445566, 3/14/2019"));
}

}  // namespace
}  // namespace osler::testing
