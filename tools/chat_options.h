// The flags of commands that turn chats into text.
#pragma once

#include <CLI/CLI.hpp>

#include "data/tokenizer/chat_template.h"

namespace osler {

// --template and --date, read into `options`, which must outlive the parsing.
void AddChatOptions(CLI::App& command, ChatTemplateOptions& options);

}  // namespace osler
