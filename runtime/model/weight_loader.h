#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/backend/backend.h"
#include "runtime/base/result.h"
#include "runtime/formats/gguf.h"
#include "runtime/model/shares.h"

namespace quern {

// Moves a file's tensors into a backend, checking names, shapes and types, and letting each
// tensor's mapped pages go as soon as the backend has its own copy. Errors name the tensor:
// kDataLoss (missing, misshapen), kUnsupported (type; lists those that are).
class WeightLoader {
 public:
  // `float32`: quantised matrices are expanded to float32.
  WeightLoader(const GgufFile& file, Backend* backend, bool float32)
      : file_(file), backend_(backend), float32_(float32) {}

  bool Has(const std::string& name) const { return file_.FindTensor(name) != nullptr; }
  // The weights of `rows` and `cols` in a matrix of these wholes, as they are stored.
  // kUnsupported where columns begin or end within a block of a quantised type, says where.
  Result<std::unique_ptr<Matrix>> LoadMatrix(const std::string& name, const Part& rows,
                                             const Part& cols);
  // The same of an output head.
  Result<std::unique_ptr<Matrix>> LoadHead(const std::string& name, const Part& rows,
                                           const Part& cols);
  // A mixture's, [experts, cols], from float32 however it is stored.
  Result<std::unique_ptr<Matrix>> LoadRouter(const std::string& name, int64_t experts,
                                             int64_t cols);
  // The same of each of `experts` matrices: GGUF's dimensions are cols x rows x experts.
  Result<std::unique_ptr<ExpertMatrices>> LoadExperts(const std::string& name, int experts,
                                                      const Part& rows, const Part& cols);
  Result<std::unique_ptr<Vector>> LoadVector(const std::string& name, int64_t size);
  // As float32, for the host.
  Result<std::vector<float>> ReadVector(const std::string& name, int64_t size);
  // Of the tensors whose names end so, the most weights that are stored as one block: what their
  // columns can be split into. 1 where there are none.
  int64_t BlockOf(std::string_view name_end) const;

  // kUnsupported when the file has tensors that were not asked for: they would change what the
  // model computes.
  Status CheckAllUsed() const;

  int64_t resident_bytes() const { return resident_bytes_; }

 private:
  // What `load` makes of these weights of each of the tensor's `matrices`, as type and data, which
  // are float32's if `expand`.
  template <typename Loaded, typename Load>
  Result<std::unique_ptr<Loaded>> Take(const GgufTensor& tensor, bool expand, int64_t matrices,
                                       const Part& rows, const Part& cols, const Load& load);
  bool Expands(const GgufTensor& tensor) const;
  Result<const GgufTensor*> Find(const std::string& name, std::vector<uint64_t> dims);

  const GgufFile& file_;
  Backend* backend_;
  bool float32_;
  std::set<std::string, std::less<>> used_;
  int64_t resident_bytes_ = 0;
};

}  // namespace quern
