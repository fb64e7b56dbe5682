#include <cmath>
#include <numeric>

#include "quern/kernels/verify_drafts.h"
#include "tests/cuda/sampling_checks.h"

namespace quern::kernels::testing {

void CheckVerification(std::mt19937_64& random, bool small);

namespace {

struct Problem {
  int64_t vocab, sequences, drafts;
  Batch target;                 // [sequences, drafts + 1] rows
  Batch draft;                  // [sequences, drafts] rows
  std::vector<int32_t> tokens;  // [sequences, drafts]
  std::vector<SampleRow> params;
  bool with_logits;

  std::string Text() const {
    return "verify " + std::to_string(sequences) + "x" + std::to_string(drafts) + " vocab " +
           std::to_string(vocab) + (with_logits ? " with logits" : "");
  }
};

struct Verdicts {
  std::vector<int32_t> accepted;  // [sequences]
  std::vector<int32_t> tokens;    // [sequences, drafts + 1]
  bool operator==(const Verdicts&) const = default;
};

Verdicts Verify(const Problem& problem) {
  const int64_t stride = (problem.vocab + 3) / 4 * 4 + 4;
  const DeviceMemory target(Spread(problem.target.logits, problem.vocab, stride));
  const DeviceMemory draft(Spread(problem.draft.logits, problem.vocab, stride));
  const DeviceMemory drafts(problem.tokens);
  const DeviceMemory params(problem.params);
  const auto count = static_cast<size_t>(problem.sequences * (problem.drafts + 1));
  DeviceMemory accepted((problem.params.size() + 4) * 4);
  DeviceMemory tokens((count + 4) * 4);
  const size_t bytes = VerifyWorkspaceBytes(problem.sequences, problem.drafts, problem.vocab);
  DeviceMemory workspace(bytes + 64);
  accepted.Fill(0xff);
  tokens.Fill(0xff);
  workspace.Fill(0xff);
  const SampleTokensArgs needs = problem.target.Needs();
  const std::string wrong =
      VerifyDrafts({target.As<float>(), problem.with_logits ? draft.As<float>() : nullptr, stride,
                    problem.vocab, problem.sequences, problem.drafts, drafts.As<int32_t>(),
                    params.As<SampleRow>(), needs.any_draw, needs.any_top_k, needs.any_top_p,
                    accepted.As<int32_t>(), tokens.As<int32_t>(), workspace.As(), bytes},
                   nullptr);
  Expect(wrong.empty(), problem.Text() + ": " + wrong);
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  Verdicts got{accepted.Read<int32_t>(0, problem.params.size() + 4),
               tokens.Read<int32_t>(0, count + 4)};
  ExpectNothingOutside(got.accepted, 1, problem.sequences, 1 << 30, problem.Text());
  ExpectNothingOutside(got.tokens, 1, static_cast<int64_t>(count), 1 << 30, problem.Text());
  ExpectNothingOutside(workspace.Read<uint8_t>(bytes, 64), 0, 1, 64, problem.Text());
  got.accepted.resize(problem.params.size());
  got.tokens.resize(count);
  return got;
}

// Parameters of all rows of the sequences.
std::vector<SampleRow> RowsOf(const std::vector<SampleRow>& params, int64_t each) {
  std::vector<SampleRow> rows;
  for (const SampleRow& of : params) {
    for (int64_t i = 0; i < each; ++i) {
      rows.push_back(of);
      rows.back().position += static_cast<uint64_t>(i);
    }
  }
  return rows;
}

// Drafts from logits that are near the target's.
Problem RandomProblem(std::mt19937_64& random, int64_t vocab, int64_t sequences, int64_t drafts,
                      bool with_logits) {
  Problem problem{vocab, sequences, drafts, {vocab, {}, {}}, {vocab, {}, {}}, {}, {}, with_logits};
  std::uniform_real_distribution<float> uniform(0, 1);
  for (int64_t s = 0; s < sequences; ++s) {
    SampleRow params{0.5f + uniform(random), 1, 0, 0, random(), random() >> 1};
    if (s % 5 == 4) params.temperature = 0;
    if (s % 2 == 1) params.top_k = static_cast<int32_t>(2 + random() % 60);
    if (s % 3 == 1) params.top_p = 0.3f + 0.7f * uniform(random);
    if (s % 4 == 3) params.min_p = 0.05f;
    problem.params.push_back(params);
  }
  problem.target.rows = RowsOf(problem.params, drafts + 1);
  problem.draft.rows = RowsOf(problem.params, drafts);
  problem.target.logits = RandomNormal(random, sequences * (drafts + 1) * vocab, 4);
  for (int64_t s = 0; s < sequences; ++s) {
    const auto first = problem.target.logits.begin() + s * (drafts + 1) * vocab;
    for (int64_t i = 0; i < drafts * vocab; ++i) {
      problem.draft.logits.push_back(first[i] + 1.5f * (uniform(random) - 0.5f));
    }
  }
  problem.tokens = Sample(problem.draft, 0, problem.Text());
  return problem;
}

struct Distribution {
  std::vector<double> share;  // of each token
  double doubtful;            // share that roundings may cut; below 0: no token can be picked

  Distribution(const Batch& batch, int64_t row) : share(static_cast<size_t>(batch.vocab)) {
    const auto at = static_cast<size_t>(row);
    doubtful = ref::SampleWeights(&batch.logits[at * share.size()], batch.vocab, batch.rows[at],
                                  share.data());
    const double total = std::accumulate(share.begin(), share.end(), 0.0);
    if (doubtful < 0) return;
    doubtful /= total;
    for (double& weight : share) weight /= total;
  }
};

// `token` is where u of the distribution falls whose weights are these, up to `bound`.
void ExpectPlace(const std::vector<double>& weights, double u, int32_t token, double bound,
                 const std::string& what) {
  const bool inside = token >= 0 && token < static_cast<int64_t>(weights.size());
  Expect(inside, what + ": token " + std::to_string(token));
  if (!inside) return;
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const double before = std::accumulate(weights.begin(), weights.begin() + token, 0.0);
  const double own = weights[static_cast<size_t>(token)];
  Expect(u * total >= before - bound && u * total <= before + own + bound && own + bound > 0,
         what + ": token " + std::to_string(token) + " begins at " + std::to_string(before) +
             " and takes " + std::to_string(own) + " of " + std::to_string(total) + "; u is " +
             std::to_string(u));
}

// One sequence's drafts, by the rule in float64. Shares err by 2^-17 and what is doubtful.
void ExpectRule(const Problem& problem, int64_t s, const Verdicts& got, const double* u0,
                const double* u1, const double* u2) {
  const int accepted = got.accepted[static_cast<size_t>(s)];
  const int32_t* tokens = &got.tokens[static_cast<size_t>(s * (problem.drafts + 1))];
  const std::string what = problem.Text() + " sequence " + std::to_string(s);
  Expect(accepted >= 0 && accepted <= problem.drafts, what + ": accepted");
  if (accepted < 0 || accepted > problem.drafts) return;
  for (int64_t i = 0; i <= accepted; ++i) {
    const std::string where = what + " draft " + std::to_string(i);
    const Distribution p(problem.target, s * (problem.drafts + 1) + i);
    if (p.doubtful < 0) {
      Expect(accepted == i && tokens[i] == -1, where + ": nothing can be picked");
      return;
    }
    const int32_t draft =
        i < problem.drafts ? problem.tokens[static_cast<size_t>(s * problem.drafts + i)] : -1;
    if (draft < 0 || draft >= problem.vocab) {
      Expect(i == accepted, where + ": there is no draft");
      ExpectPlace(p.share, u0[i], tokens[i], 2 * kWeightError + p.doubtful, where);
      return;
    }
    const Distribution q(problem.draft, s * problem.drafts + i);
    const double of_p = p.share[static_cast<size_t>(draft)];
    const double of_q = q.doubtful < 0 ? INFINITY : q.share[static_cast<size_t>(draft)];
    const bool greedy = problem.params[static_cast<size_t>(s)].temperature == 0;
    const double need = greedy ? 0.5 : u1[i] * of_q;
    const double doubt = 8 * kWeightError * std::max(of_p, std::isinf(of_q) ? 0 : of_q) +
                         p.doubtful + std::max(0.0, q.doubtful);
    if (i < accepted) {
      Expect(need <= of_p + doubt && tokens[i] == draft, where + ": wrongly accepted");
      continue;
    }
    Expect(greedy ? of_p == 0 : need >= of_p - doubt, where + ": wrongly refused");
    std::vector<double> excess = p.share;
    for (size_t k = 0; k < excess.size() && !greedy && q.doubtful >= 0; ++k) {
      excess[k] = std::max(0.0, excess[k] - q.share[k]);
    }
    ExpectPlace(excess, u2[i], tokens[i], 4 * kWeightError + p.doubtful + std::max(0.0, q.doubtful),
                where + " instead");
  }
}

Verdicts RunProblem(const Problem& problem) {
  const Verdicts got = Verify(problem);
  Expect(Verify(problem) == got, problem.Text() + ": two runs differ");
  const auto each = static_cast<size_t>(problem.drafts + 1);
  for (size_t s = 0; s < got.accepted.size(); ++s) {
    bool rest = true;
    for (size_t i = static_cast<size_t>(got.accepted[s]) + 1; i < each; ++i) {
      rest = rest && got.tokens[s * each + i] == -1;
    }
    Expect(rest, problem.Text() + ": -1 after the last token");
  }
  if (problem.with_logits) {
    const auto u0 = Uniforms(problem.target.rows, 0);
    const auto u1 = Uniforms(problem.target.rows, 1);
    const auto u2 = Uniforms(problem.target.rows, 2);
    for (size_t s = 0; s < got.accepted.size(); ++s) {
      ExpectRule(problem, static_cast<int64_t>(s), got, &u0[s * each], &u1[s * each],
                 &u2[s * each]);
    }
    return got;
  }
  // The tokens that there would be without drafts.
  const auto own = Sample(problem.target, 0, problem.Text());
  for (size_t s = 0; s < got.accepted.size(); ++s) {
    size_t i = 0;
    while (i + 1 < each && own[s * each + i] >= 0 &&
           own[s * each + i] == problem.tokens[s * (each - 1) + i]) {
      ++i;
    }
    Expect(got.accepted[s] == static_cast<int32_t>(i) &&
               std::equal(own.begin() + static_cast<std::ptrdiff_t>(s * each),
                          own.begin() + static_cast<std::ptrdiff_t>(s * each + i + 1),
                          got.tokens.begin() + static_cast<std::ptrdiff_t>(s * each)),
           problem.Text() + ": other tokens than without drafts");
  }
  return got;
}

// Drafts that end early, rows that are no numbers, drafts that q has not.
void RunSpecials(std::mt19937_64& random, bool with_logits) {
  Problem problem = RandomProblem(random, 300, 6, 3, with_logits);
  for (auto* params : {&problem.params, &problem.target.rows, &problem.draft.rows}) {
    for (SampleRow& of : *params) of.temperature = 1;
  }
  problem.tokens[0] = -1;
  problem.tokens[3 + 1] = 300;
  const auto row = [&](std::vector<float>& logits, int64_t index) {
    return logits.begin() + index * problem.vocab;
  };
  row(problem.target.logits, 2 * 4)[9] = NAN;
  row(problem.draft.logits, 3 * 3)[9] = NAN;
  row(problem.draft.logits, 4 * 3)[problem.tokens[4 * 3]] = -INFINITY;
  // p and q the same: every draft is accepted.
  std::copy_n(row(problem.target.logits, 5 * 4), 3 * problem.vocab,
              row(problem.draft.logits, 5 * 3));
  if (with_logits) {
    const auto tokens = Sample(problem.draft, 0, "the same p and q");
    std::copy_n(tokens.begin() + 5 * 3, 3, problem.tokens.begin() + 5 * 3);
  }
  const Verdicts got = RunProblem(problem);
  Expect(got.accepted[0] == 0 && got.accepted[1] <= 1 && got.accepted[2] == 0 &&
             got.tokens[2 * 4] == -1 && (!with_logits || got.accepted[3] == 0),
         problem.Text() + ": special rows");
  if (with_logits) Expect(got.accepted[5] == 3, problem.Text() + ": p is q");
}

// The first token of many sequences with one p is distributed as p, whatever q is (chi-square).
void TokensFollowTheTarget(std::mt19937_64& random) {
  constexpr int64_t kSequences = 5000;
  const std::vector<float> p = {0.5f, 2.0f, -1.0f, 1.0f, 0.0f};
  const std::vector<float> q = {1.5f, 0.0f, 0.0f, 2.0f, -1.0f};
  Problem problem{5, kSequences, 1, {5, {}, {}}, {5, {}, {}}, {}, {}, true};
  for (int64_t s = 0; s < kSequences; ++s) {
    problem.params.push_back({1, 1, 0, 0, random(), 3});
    for (int i = 0; i < 2; ++i) {
      problem.target.logits.insert(problem.target.logits.end(), p.begin(), p.end());
    }
    problem.draft.logits.insert(problem.draft.logits.end(), q.begin(), q.end());
  }
  problem.target.rows = RowsOf(problem.params, 2);
  problem.draft.rows = problem.params;
  problem.tokens = Sample(problem.draft, 0, "follow");
  const Verdicts got = Verify(problem);
  std::vector<double> counts(5);
  for (size_t s = 0; s < kSequences; ++s) ++counts[static_cast<size_t>(got.tokens[2 * s])];
  const Distribution exact(problem.target, 0);
  double chi_square = 0;
  for (size_t i = 0; i < 5; ++i) {
    const double expected = exact.share[i] * kSequences;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  // Four degrees of freedom; one run in a hundred million is beyond 43.
  Expect(chi_square < 43, "tokens follow the target: chi-square " + std::to_string(chi_square));
}

void Refusals() {
  const DeviceMemory memory(1 << 20);
  auto* floats = memory.As<float>();
  auto* ints = memory.As<int32_t>() + 4096;
  const VerifyDraftsArgs good{floats,
                              floats,
                              16,
                              16,
                              1,
                              2,
                              ints,
                              reinterpret_cast<const SampleRow*>(floats + 2048),
                              true,
                              false,
                              false,
                              ints + 16,
                              ints + 32,
                              floats + 8192,
                              VerifyWorkspaceBytes(1, 2, 16)};
  const auto refused = [&](auto change, const char* part) {
    auto bad = good;
    change(bad);
    ExpectRefusal(VerifyDrafts(bad, nullptr), part);
  };
  refused([](auto& a) { a.drafts = 0; }, "drafts is 0; it must be from 1 to 32");
  refused([](auto& a) { a.sequences = 30000; }, "sequences is 30000");
  refused([](auto& a) { a.vocab = 0; }, "vocab is 0");
  refused([](auto& a) { a.logits_stride = 18; }, "logits_stride is 18");
  refused([](auto& a) { a.draft_logits += 1; }, "draft_logits is misaligned");
  refused([](auto& a) { a.accepted = nullptr; }, "accepted is null");
  refused([](auto& a) { a.workspace_size -= 1; }, "less than VerifyWorkspaceBytes");
}

}  // namespace

void CheckVerification(std::mt19937_64& random, bool small) {
  Refusals();
  for (bool with_logits : {false, true}) {
    RunSpecials(random, with_logits);
    RunProblem(RandomProblem(random, 3, 5, 2, with_logits));
    RunProblem(RandomProblem(random, 2053, 4, 2, with_logits));
    if (!small) RunProblem(RandomProblem(random, 128256, 10, 5, with_logits));
  }
  if (!small) TokensFollowTheTarget(random);
}

}  // namespace quern::kernels::testing
