#include "tools/chat_options.h"

namespace osler {

void AddChatOptions(CLI::App& command, ChatTemplateOptions& options) {
  command.add_option("--template", options.name,
                     "a built-in chat template, gemma, llama3 or chatml, in place of the "
                     "directory's own");
  command.add_option("--date", options.date,
                     "YYYY-MM-DD, for chat templates that write today's date");
}

}  // namespace osler
