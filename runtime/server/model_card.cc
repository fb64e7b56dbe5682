#include "runtime/server/model_card.h"

namespace quern::server {
namespace {

using nlohmann::json;

// `meta` as llama.cpp's server has it, for clients that read it there, and what a measurement must
// say of the precision.
json MetaJson(const ModelInfo& info) {
  json by_type = json::object();
  int64_t size = 0;
  for (const StoredWeights& stored : info.stored) {
    by_type[stored.type] = stored.bytes;
    size += stored.bytes;
  }
  return {{"architecture", info.architecture},
          {"n_params", info.parameters},
          {"n_ctx_train", info.context_tokens},
          {"n_vocab", info.vocab_size},
          {"n_embd", info.width},
          {"size", size},
          {"quantization", info.quantization},
          {"size_by_type", std::move(by_type)},
          {"kv_cache_dtype", KvDtypeName(info.kv_dtype)}};
}

}  // namespace

json ModelJson(const LoadedModel& model) {
  return {{"id", model.served_name},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "quern"},
          {"max_model_len", model.engine->max_context_tokens()},
          {"meta", MetaJson(model.info)}};
}

}  // namespace quern::server
