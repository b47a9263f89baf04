// Parses what jinja_lexer.cc made into the tree of jinja_node.h. Internal to
// data/tokenizer/jinja_*.cc.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/tokenizer/jinja_node.h"

namespace osler::jinja {

// Recursive descent with a bound on its depth. One use.
class Parser {
 public:
  Parser(std::vector<LexToken> tokens, const std::vector<std::string>& variables);
  absl::StatusOr<Body> Run();
  // The special variables that were read, in order of name.
  const std::set<std::string>& reads() const { return reads_; }
  bool marks_generation() const { return marks_generation_; }

 private:
  // Statements.
  absl::StatusOr<Body> ParseBody();  // until a closing keyword, which it leaves
  absl::StatusOr<NodePtr> ParseBlock();
  absl::StatusOr<NodePtr> ParseIf();
  absl::StatusOr<NodePtr> ParseFor();
  absl::StatusOr<NodePtr> ParseSet();
  absl::StatusOr<NodePtr> ParseMacro();
  absl::StatusOr<NodePtr> ParseGeneration();
  absl::StatusOr<NodePtr> ParseJump(Op op);
  absl::Status ParseTargets(std::vector<std::string>& names);
  absl::Status ParseParameters(Node& macro);
  absl::Status EndBlock(std::string_view word);  // {% word %}
  absl::StatusOr<std::string> NewName();

  // Expressions, loosest binding first.
  absl::StatusOr<NodePtr> ParseExpression();
  absl::StatusOr<NodePtr> ParseOr();
  absl::StatusOr<NodePtr> ParseAnd();
  absl::StatusOr<NodePtr> ParseNot();
  absl::StatusOr<NodePtr> ParseCompare();
  absl::StatusOr<NodePtr> ParseBinary(int level);
  absl::StatusOr<NodePtr> ParseUnary(bool with_filter);
  absl::StatusOr<NodePtr> ParsePrimary();
  absl::StatusOr<NodePtr> ParseName();
  absl::StatusOr<NodePtr> ParseList();
  absl::StatusOr<NodePtr> ParseDict();
  absl::StatusOr<NodePtr> ParseParenthesis();
  absl::StatusOr<NodePtr> ParsePostfix(NodePtr node);
  absl::StatusOr<NodePtr> ParseSubscript(NodePtr object);
  absl::StatusOr<NodePtr> ParseMember(NodePtr object);
  absl::StatusOr<NodePtr> ParseFilter(NodePtr node);
  absl::StatusOr<NodePtr> ParseTest(NodePtr node);
  // jinja_call.cc
  absl::StatusOr<NodePtr> ParseCall(std::string name);
  absl::StatusOr<NodePtr> ParseMethod(NodePtr object, std::string name);
  absl::Status ParseArguments(Node& call);  // behind the parenthesis
  absl::Status BindArguments(Node& call, std::string_view name, bool is_filter) const;
  absl::Status CheckLoopMember(const Node& object, const Node& key) const;

  const LexToken& peek(size_t ahead = 0) const;
  bool IsNext(Lex kind, std::string_view text) const;
  bool Take(Lex kind, std::string_view text);
  bool TakeWord(std::string_view word) { return Take(Lex::kName, word); }
  bool TakeSymbol(std::string_view symbol) { return Take(Lex::kSymbol, symbol); }
  absl::Status Expect(Lex kind, std::string_view text, std::string_view what);
  absl::Status Unexpected(std::string_view wanted) const;
  NodePtr Make(Op op, std::string text = "") const;

  std::vector<LexToken> tokens_;
  size_t at_ = 0;
  int depth_ = 0, loops_ = 0, macros_ = 0;
  bool marks_generation_ = false;
  std::set<std::string> variables_, defined_, reads_;  // defined_: macros
};

}  // namespace osler::jinja
