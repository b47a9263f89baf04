// What the writer of an unknown key may have meant.
#pragma once

#include <string>
#include <vector>

#include <google/protobuf/descriptor.h>

namespace osler {

// The one of `names` that differs from `name` in few letters (case and - for _ apart), or "".
std::string NearestName(const std::string& name, const std::vector<std::string>& names);

// "did you mean 'lr'?" by edit distance among the keys of `message`, else "did you mean
// 'optimizer.lr'?" when some other part of `root` has exactly this key, else the list of valid
// keys.
std::string SuggestKey(const std::string& key, const google::protobuf::Descriptor& message,
                       const google::protobuf::Descriptor& root);

}  // namespace osler
