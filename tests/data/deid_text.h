// One text through the real gate, for the tests of de-identification.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "data/deid/gate.h"

namespace osler::testing {

inline RawRecord RawChat(std::string text, KnownIdentifiers known = {}, std::string id = "note",
                         std::string subject = "somebody") {
  RawRecord raw;
  raw.id = std::move(id);
  raw.subject = std::move(subject);
  raw.body.messages = {{"user", std::move(text)}};
  raw.known = std::move(known);
  raw.origin = {"notes.jsonl", 7};
  return raw;
}

// The text after the gate; `counts`, if given, gets the replacements.
inline std::string Clean(std::string text, KnownIdentifiers known = {},
                         RuleCounts* counts = nullptr) {
  static DeidGate* gate = DeidGate::Create(config::Deid()).value().release();
  const RuleCounts before = gate->counts();
  const auto clean = gate->Pass(RawChat(std::move(text), std::move(known)));
  OSLER_CHECK(clean.ok());
  if (counts != nullptr) {
    *counts = gate->counts();
    for (auto& [rule, count] : *counts) count -= before.at(rule);
  }
  return clean->body().messages[0].content;
}

}  // namespace osler::testing
