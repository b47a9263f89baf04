#include "data/deid/rules.h"

#include <iterator>
#include <utility>

namespace osler {

std::vector<RuleSpec> SafeHarborRules() {
  std::vector<RuleSpec> rules;
  for (auto* part :
       {DateRules, ContactRules, NumberRules, PlaceRules, BarePhoneRules, BareNumberRules}) {
    std::vector<RuleSpec> some = part();
    rules.insert(rules.end(), std::make_move_iterator(some.begin()),
                 std::make_move_iterator(some.end()));
  }
  return rules;
}

}  // namespace osler
