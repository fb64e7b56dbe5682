#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/backend/backend.h"
#include "runtime/model/hyperparameters.h"
#include "runtime/model/model.h"
#include "runtime/model/weight_loader.h"

namespace quern {

// What the families have in common: sizes, backend, and the KV cache's shape. Each family's file
// has its weights and its forward pass.
class Decoder : public Model {
 public:
  Decoder(Hyperparameters hyperparameters, std::unique_ptr<Backend> backend)
      : h_(std::move(hyperparameters)), backend_(std::move(backend)) {}

  const ModelInfo& info() const override { return info_; }
  Status AllocateKv(const KvLayout& layout) override {
    return backend_->AllocateKv({h_.layers, h_.kv_heads, h_.head_dim}, layout);
  }

  // Takes the weights; once, before anything else.
  virtual Status LoadWeights(WeightLoader& loader) = 0;
  void set_info(ModelInfo info) { info_ = std::move(info); }
  Backend& backend() { return *backend_; }

 protected:
  int query_width() const { return h_.heads * h_.head_dim; }
  int kv_width() const { return h_.kv_heads * h_.head_dim; }

  Hyperparameters h_;
  std::unique_ptr<Backend> backend_;

 private:
  ModelInfo info_;
};

std::unique_ptr<Decoder> MakeLlama(Hyperparameters h, std::unique_ptr<Backend> backend);
std::unique_ptr<Decoder> MakeGemma3(Hyperparameters h, std::unique_ptr<Backend> backend);

}  // namespace quern
