#include "runtime/bench/prompts.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>
#include <string_view>

#include "runtime/bench/random.h"

namespace quern::bench {
namespace {

// Frequent English words: with a space before them, each is one token in the usual vocabularies.
constexpr auto kWords = std::to_array<std::string_view>({
    "time",    "year",    "people",   "way",     "day",     "man",     "thing",    "woman",
    "life",    "child",   "world",    "school",  "state",   "family",  "student",  "group",
    "country", "problem", "hand",     "part",    "place",   "case",    "week",     "company",
    "system",  "program", "question", "work",    "number",  "night",   "point",    "home",
    "water",   "room",    "mother",   "area",    "money",   "story",   "fact",     "month",
    "lot",     "right",   "study",    "book",    "eye",     "job",     "word",     "business",
    "issue",   "side",    "kind",     "head",    "house",   "service", "friend",   "father",
    "power",   "hour",    "game",     "line",    "end",     "member",  "law",      "car",
    "city",    "name",    "team",     "minute",  "idea",    "body",    "back",     "parent",
    "face",    "level",   "office",   "door",    "health",  "person",  "art",      "war",
    "history", "party",   "result",   "change",  "morning", "reason",  "research", "girl",
    "guy",     "moment",  "air",      "teacher", "force",   "order",   "food",     "land",
    "light",   "paper",   "music",    "plan",    "field",   "river",   "stone",    "bread",
    "grain",   "road",    "tree",     "bird",    "fish",    "horse",   "dog",      "cat",
    "king",    "queen",   "ship",     "sea",     "sun",     "moon",    "star",     "fire",
    "wind",    "rain",    "snow",     "summer",  "winter",  "spring",  "red",      "blue",
    "green",   "white",   "black",    "gold",    "silver",  "iron",    "glass",    "wood",
    "old",     "new",     "good",     "great",   "small",   "large",   "long",     "short",
    "high",    "low",     "early",    "late",    "young",   "strong",  "free",     "full",
    "open",    "clear",   "hard",     "soft",    "warm",    "cold",    "hot",      "dark",
    "deep",    "wide",    "make",     "take",    "come",    "see",     "know",     "get",
    "give",    "find",    "think",    "tell",    "become",  "show",    "leave",    "feel",
    "put",     "bring",   "begin",    "keep",    "hold",    "write",   "stand",    "hear",
    "let",     "mean",    "set",      "meet",    "run",     "pay",     "sit",      "speak",
    "lie",     "lead",    "read",     "grow",    "lose",    "fall",    "send",     "build",
    "cut",     "reach",   "kill",     "remain",  "ask",     "need",    "call",     "try",
    "use",     "move",    "live",     "play",    "believe", "like",    "help",     "turn",
    "start",   "might",   "talk",     "walk",    "watch",   "follow",  "stop",     "create",
    "allow",   "add",     "spend",    "win",     "offer",   "love",    "remember", "consider",
    "appear",  "buy",     "wait",     "serve",   "die",     "expect",  "stay",     "and",
    "but",     "with",    "from",     "about",   "after",   "under",   "over",
});
constexpr std::string_view kFirstWord = "the";
// With fewer words than this, prompts would be too much alike.
constexpr size_t kFewestWords = 64;
// A vocabulary with more tokens a word than this is no English one: halving would go on for long.
constexpr double kManyTokensPerWord = 1.5;
constexpr size_t kTrialWords = 200;
constexpr uint64_t kTrialSeed = 7;

void Append(std::string& text, std::span<const uint16_t> words) {
  for (const uint16_t word : words) {
    text += ' ';
    text += kWords[word];
  }
}

class WordFinder {
 public:
  explicit WordFinder(const TokenCounter& count) : count_(count) {}

  Result<WordTokens> Find() {
    std::vector<uint16_t> all(kWords.size());
    std::iota(all.begin(), all.end(), uint16_t{0});
    QUERN_ASSIGN(found_.first_word_tokens, count_(std::string(kFirstWord)));
    if (found_.first_word_tokens < 1) return Senseless(1, found_.first_word_tokens);
    QUERN_ASSIGN(const int32_t of_all, Count(all));
    const auto words = static_cast<double>(all.size());
    if (of_all < static_cast<int32_t>(words / 16)) return Senseless(all.size(), of_all);
    if (of_all <= words * kManyTokensPerWord) {
      QUERN_TRY(KeepSingles(all, of_all));
      QUERN_ASSIGN(found_.exact, TrialIsExact());
      if (found_.exact) return found_;
    }
    found_.words = std::move(all);
    found_.tokens_per_word = of_all / words;
    return found_;
  }

 private:
  static Error Senseless(size_t words, int32_t tokens) {
    return MakeError(ErrorCode::kUnsupported, "the server counts {} tokens in {} words", tokens,
                     words);
  }

  // Tokens of `words`, which come after the first word.
  Result<int32_t> Count(std::span<const uint16_t> words) const {
    std::string text(kFirstWord);
    Append(text, words);
    QUERN_ASSIGN(const int32_t tokens, count_(text));
    return tokens - found_.first_word_tokens;
  }

  Status KeepSingles(std::span<const uint16_t> words, int32_t tokens) {
    if (tokens == static_cast<int32_t>(words.size())) {
      found_.words.insert(found_.words.end(), words.begin(), words.end());
      return {};
    }
    if (words.size() == 1) return {};
    const auto half = words.first(words.size() / 2), rest = words.subspan(words.size() / 2);
    QUERN_ASSIGN(const int32_t of_half, Count(half));
    QUERN_TRY(KeepSingles(half, of_half));
    return KeepSingles(rest, tokens - of_half);
  }

  // Words are not always alone: some tokenizers join them.
  Result<bool> TrialIsExact() const {
    if (found_.words.size() < kFewestWords) return false;
    Random random(kTrialSeed);
    std::vector<uint16_t> trial;
    for (size_t i = 0; i < kTrialWords; ++i) {
      trial.push_back(found_.words[random.Below(static_cast<uint32_t>(found_.words.size()))]);
    }
    QUERN_ASSIGN(const int32_t tokens, Count(trial));
    return tokens == static_cast<int32_t>(kTrialWords);
  }

  const TokenCounter& count_;
  WordTokens found_;
};

// The streams of random words that a seed gives.
enum PromptStream : uint64_t { kShared = 11, kOwn = 12, kBlock = 13 };

}  // namespace

WordTokens UnknownWordTokens() {
  WordTokens unknown;
  unknown.words.resize(kWords.size());
  std::iota(unknown.words.begin(), unknown.words.end(), uint16_t{0});
  return unknown;
}

Result<WordTokens> LearnWords(const TokenCounter& count) { return WordFinder(count).Find(); }

std::string PromptMaker::Make(const PlannedRequest& request) const {
  std::string text(kFirstWord);
  const auto num_words = static_cast<uint32_t>(words_.words.size());
  const auto words_of = [this](int32_t tokens) {
    return static_cast<int64_t>(std::llround(std::max(0, tokens) / words_.tokens_per_word));
  };
  const auto append = [&](Random random, int64_t words) {
    for (; words > 0; --words) {
      text += ' ';
      text += kWords[words_.words[random.Below(num_words)]];
    }
  };
  int64_t left = words_of(request.prompt_tokens - words_.first_word_tokens);
  const int64_t shared =
      std::min(left, words_of(options_.shared_prefix - words_.first_word_tokens));
  append(Random(MixSeeds(options_.seed, kShared)), shared);
  left -= shared;
  if (request.blocks != nullptr) {
    for (const int64_t block : *request.blocks) {
      const int64_t words = std::min(left, words_of(kTraceBlockTokens));
      const uint64_t name = MixSeeds(static_cast<uint64_t>(block), kBlock);
      append(Random(MixSeeds(options_.seed, name)), words);
      left -= words;
    }
  }
  const uint64_t own = MixSeeds(static_cast<uint64_t>(request.index), kOwn);
  append(Random(MixSeeds(options_.seed, own)), left);
  return text;
}

}  // namespace quern::bench
