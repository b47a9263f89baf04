// Multiple-choice questions: from a field map's `choice` to three fields that templates may name.
//
// $options: a line "A. text" for each option. $letter: the letter of the right one. $answer: its
// text. Options are several fields of one text each, or one field with a list, lettered A, B, C, …;
// or one field with an object by letter. The answer is a letter (of either case), or the number of
// an option, counted from choice.first.
#pragma once

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "configs/schema/build.pb.h"
#include "data/record.h"

namespace osler {

// Without choice.answer only $options is made. Rejects rows whose fields do not fit.
absl::Status AddChoice(const config::Choice& choice, const Origin& origin, nlohmann::json& row);

}  // namespace osler
