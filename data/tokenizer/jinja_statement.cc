#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/tokenizer/jinja_parser.h"

namespace osler::jinja {
namespace {

constexpr int kMaxDepth = 100;

bool ClosesBody(std::string_view word) {
  return word == "elif" || word == "else" || word == "endif" || word == "endfor" ||
         word == "endset" || word == "endmacro" || word == "endgeneration";
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
  if (TakeWord("macro")) return ParseMacro();
  if (TakeWord("generation")) return ParseGeneration();
  if (TakeWord("break")) return ParseJump(Op::kBreak);
  if (TakeWord("continue")) return ParseJump(Op::kContinue);
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

absl::Status Parser::EndBlock(std::string_view word) {
  OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockBegin, "", word));
  OSLER_RETURN_IF_ERROR(Expect(Lex::kName, word, word));
  return Expect(Lex::kBlockEnd, "", "%}");
}

absl::Status Parser::ParseTargets(std::vector<std::string>& names) {
  const bool closes = TakeSymbol("(");
  do {
    OSLER_ASSIGN_OR_RETURN(std::string name, NewName());
    names.push_back(std::move(name));
  } while (TakeSymbol(","));
  return closes ? Expect(Lex::kSymbol, ")", ")") : absl::OkStatus();
}

absl::StatusOr<NodePtr> Parser::ParseFor() {
  NodePtr node = Make(Op::kFor);
  OSLER_RETURN_IF_ERROR(ParseTargets(node->names));
  OSLER_RETURN_IF_ERROR(Expect(Lex::kName, "in", "in"));
  OSLER_ASSIGN_OR_RETURN(NodePtr sequence,
                         ParseOr());  // a conditional needs parentheses here, as in Jinja
  node->children.push_back(std::move(sequence));
  node->children.push_back(nullptr);
  if (TakeWord("if")) {
    OSLER_ASSIGN_OR_RETURN(node->children[1], ParseExpression());
  }
  OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockEnd, "", "%}"));
  ++loops_;
  OSLER_ASSIGN_OR_RETURN(node->body, ParseBody());
  --loops_;
  if (peek(1).text == "else") {
    at_ += 2;
    OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockEnd, "", "%}"));
    node->branches.emplace_back();
    OSLER_ASSIGN_OR_RETURN(node->branches[0].body, ParseBody());
  }
  OSLER_RETURN_IF_ERROR(EndBlock("endfor"));
  return node;
}

absl::StatusOr<NodePtr> Parser::ParseSet() {
  NodePtr node = Make(Op::kSet);
  if (peek().kind == Lex::kName && peek(1).kind == Lex::kSymbol && peek(1).text == ".") {
    node->op = Op::kSetMember;
    OSLER_ASSIGN_OR_RETURN(node->text, NewName());
    ++at_;
    if (peek().kind != Lex::kName) return Unexpected("the name of a member");
    node->names.push_back(peek().text);
    ++at_;
  } else {
    OSLER_RETURN_IF_ERROR(ParseTargets(node->names));
    if (node->names.size() == 1 && Take(Lex::kBlockEnd, "")) {
      node->op = Op::kSetBlock;
      OSLER_ASSIGN_OR_RETURN(node->body, ParseBody());
      OSLER_RETURN_IF_ERROR(EndBlock("endset"));
      return node;
    }
  }
  OSLER_RETURN_IF_ERROR(Expect(Lex::kSymbol, "=", "="));
  OSLER_ASSIGN_OR_RETURN(NodePtr value, ParseExpression());
  node->children.push_back(std::move(value));
  OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockEnd, "", "%}"));
  return node;
}

absl::Status Parser::ParseParameters(Node& macro) {
  OSLER_RETURN_IF_ERROR(Expect(Lex::kSymbol, "(", "("));
  while (!TakeSymbol(")")) {
    OSLER_ASSIGN_OR_RETURN(std::string name, NewName());
    macro.names.push_back(std::move(name));
    macro.children.push_back(nullptr);
    if (TakeSymbol("=")) {
      OSLER_ASSIGN_OR_RETURN(macro.children.back(), ParseExpression());
    }
    if (!IsNext(Lex::kSymbol, ")")) OSLER_RETURN_IF_ERROR(Expect(Lex::kSymbol, ",", ")"));
  }
  return absl::OkStatus();
}

absl::StatusOr<NodePtr> Parser::ParseMacro() {
  NodePtr node = Make(Op::kMacro);
  if (loops_ > 0 || macros_ > 0) return SyntaxError(node->line, "a macro inside a loop or macro");
  OSLER_ASSIGN_OR_RETURN(node->text, NewName());
  defined_.insert(node->text);
  OSLER_RETURN_IF_ERROR(ParseParameters(*node));
  OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockEnd, "", "%}"));
  ++macros_;
  OSLER_ASSIGN_OR_RETURN(node->body, ParseBody());
  --macros_;
  OSLER_RETURN_IF_ERROR(EndBlock("endmacro"));
  return node;
}

absl::StatusOr<NodePtr> Parser::ParseGeneration() {
  NodePtr node = Make(Op::kGeneration);
  if (macros_ > 0) return SyntaxError(node->line, "a generation block inside a macro");
  marks_generation_ = true;
  OSLER_RETURN_IF_ERROR(Expect(Lex::kBlockEnd, "", "%}"));
  OSLER_ASSIGN_OR_RETURN(node->body, ParseBody());
  OSLER_RETURN_IF_ERROR(EndBlock("endgeneration"));
  return node;
}

absl::StatusOr<NodePtr> Parser::ParseJump(Op op) {
  NodePtr node = Make(op);
  if (loops_ == 0) return SyntaxError(node->line, "a break or continue outside a loop");
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

}  // namespace osler::jinja
