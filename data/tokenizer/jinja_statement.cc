#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/tokenizer/jinja_parser.h"

namespace osler::jinja {
namespace {

constexpr int kMaxDepth = 100;

bool ClosesBody(std::string_view word) {
  return word == "elif" || word == "else" || word == "endif" || word == "endfor";
}

}  // namespace

Parser::Parser(std::vector<LexToken> tokens, const std::vector<std::string>& variables)
    : tokens_(std::move(tokens)), variables_(variables.begin(), variables.end()) {}

const LexToken& Parser::peek(size_t ahead) const {
  return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
}

bool Parser::IsNext(Lex kind, std::string_view text) const {
  return peek().kind == kind && peek().text == text;
}

bool Parser::Take(Lex kind, std::string_view text) {
  if (!IsNext(kind, text)) return false;
  ++at_;
  return true;
}

absl::Status Parser::Unexpected(std::string_view wanted) const {
  return SyntaxError(peek().line,
                     absl::StrCat("expected ", absl::string_view(wanted.data(), wanted.size()),
                                  " instead of \"", peek().text, "\""));
}

absl::Status Parser::Expect(Lex kind, std::string_view text, std::string_view what) {
  return Take(kind, text) ? absl::OkStatus() : Unexpected(what);
}

NodePtr Parser::Make(Op op, std::string text) const {
  auto node = std::make_unique<Node>();
  node->op = op;
  node->line = peek().line;
  node->text = std::move(text);
  return node;
}

absl::StatusOr<Body> Parser::Run() {
  OSLER_ASSIGN_OR_RETURN(Body body, ParseBody());
  if (peek().kind != Lex::kEnd) return Unexpected("the end of the template");
  return body;
}

absl::StatusOr<Body> Parser::ParseBody() {
  if (++depth_ > kMaxDepth) return SyntaxError(peek().line, "nested too deeply");
  Body body;
  while (peek().kind != Lex::kEnd) {
    if (peek().kind == Lex::kData) {
      body.push_back(Make(Op::kData, peek().text));
      ++at_;
    } else if (Take(Lex::kPrintBegin, "")) {
      NodePtr print = Make(Op::kPrint);
      OSLER_ASSIGN_OR_RETURN(NodePtr value, ParseExpression());
      print->children.push_back(std::move(value));
      OSLER_RETURN_IF_ERROR(Expect(Lex::kPrintEnd, "", "}}"));
      body.push_back(std::move(print));
    } else if (ClosesBody(peek(1).text)) {
      break;
    } else {
      OSLER_ASSIGN_OR_RETURN(NodePtr block, ParseBlock());
      body.push_back(std::move(block));
    }
  }
  --depth_;
  return body;
}

absl::StatusOr<NodePtr> Parser::ParseBlock() {
  OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockBegin, "", "a block"));
  if (TakeWord("if")) return ParseIf();
  if (TakeWord("for")) return ParseFor();
  if (TakeWord("set")) return ParseSet();
  return SyntaxError(peek().line, absl::StrCat("unknown statement \"", peek().text, "\""));
}

absl::StatusOr<NodePtr> Parser::ParseIf() {
  NodePtr node = Make(Op::kIf);
  bool more = true, last = false;
  while (more) {
    Node::Branch branch;
    if (!last) {
      OSLER_ASSIGN_OR_RETURN(branch.condition, ParseExpression());
    }
    OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockEnd, "", "%}"));
    OSLER_ASSIGN_OR_RETURN(branch.body, ParseBody());
    node->branches.push_back(std::move(branch));
    OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockBegin, "", "endif"));
    more = false;
    if (!last && TakeWord("elif")) {
      more = true;
    } else if (!last && TakeWord("else")) {
      more = last = true;
    } else {
      OSLER_RETURN_IF_ERROR(Expect(Lex::kName, "endif", "endif"));
    }
  }
  OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockEnd, "", "%}"));
  return node;
}

absl::StatusOr<std::string> Parser::NewName() {
  const std::string name = peek().text;
  if (peek().kind != Lex::kName || name == "loop") {
    return Unexpected("the name of a new variable");
  }
  ++at_;
  return name;
}

absl::StatusOr<NodePtr> Parser::ParseFor() {
  NodePtr node = Make(Op::kFor);
  OSLER_ASSIGN_OR_RETURN(node->text, NewName());
  OSLER_RETURN_IF_ERROR(Expect(Lex::kName, "in", "in"));
  OSLER_ASSIGN_OR_RETURN(NodePtr sequence,
                         ParseOr());  // a conditional needs parentheses here, as in Jinja
  node->children.push_back(std::move(sequence));
  node->children.push_back(nullptr);
  assigned_.insert(node->text);
  if (TakeWord("if")) {
    OSLER_ASSIGN_OR_RETURN(node->children[1], ParseExpression());
  }
  OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockEnd, "", "%}"));
  ++loops_;
  OSLER_ASSIGN_OR_RETURN(node->body, ParseBody());
  --loops_;
  OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockBegin, "", "endfor"));
  OSLER_RETURN_IF_ERROR(Expect(Lex::kName, "endfor", "endfor"));
  OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockEnd, "", "%}"));
  return node;
}

absl::StatusOr<NodePtr> Parser::ParseSet() {
  NodePtr node = Make(Op::kSet);
  OSLER_ASSIGN_OR_RETURN(node->text, NewName());
  OSLER_RETURN_IF_ERROR(Expect(Lex::kSymbol, "=", "="));
  OSLER_ASSIGN_OR_RETURN(NodePtr value, ParseExpression());
  node->children.push_back(std::move(value));
  assigned_.insert(node->text);
  OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockEnd, "", "%}"));
  return node;
}

}  // namespace osler::jinja
