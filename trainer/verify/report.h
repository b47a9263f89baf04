// What `osler verify` tells of its results: a table for people, JSON lines for programs.
#pragma once

#include <string>

#include "trainer/verify/verify.h"

namespace osler {

// Lines of one table, each with its newline.
std::string VerifyTableHeader();
std::string VerifyTableRow(const VerifyResult& result);
// A layout that was not run, and why.
std::string VerifyTableSkip(const VerifyLayout& layout, const std::string& reason);

// {"layout", "ranks", "ok", "failures", "worst_gradient": {"name", "relative"}, "worst_parameter",
//  "loss", "grad_norm", "bytes_sent": {axis: bytes}, "seconds"}; {"layout", "ranks", "skipped"}.
//  End with a newline.
std::string VerifyJsonLine(const VerifyResult& result);
std::string VerifyJsonSkip(const VerifyLayout& layout, const std::string& reason);

}  // namespace osler
