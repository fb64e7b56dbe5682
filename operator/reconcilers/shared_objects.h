#pragma once

#include <initializer_list>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "operator/kube/object.h"

namespace quern::control {

// Objects of a store, shared with it and not copied, that read like a std::vector<const json>.
class SharedObjects {
 public:
  class Iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = kube::json;
    using difference_type = std::ptrdiff_t;
    using pointer = const kube::json*;
    using reference = const kube::json&;

    Iterator() = default;
    explicit Iterator(std::vector<kube::ObjectPtr>::const_iterator at) : at_(at) {}
    reference operator*() const { return **at_; }
    pointer operator->() const { return at_->get(); }
    Iterator& operator++() {
      ++at_;
      return *this;
    }
    Iterator operator++(int) { return Iterator(at_++); }
    bool operator==(const Iterator&) const = default;

   private:
    std::vector<kube::ObjectPtr>::const_iterator at_;
  };

  SharedObjects() = default;
  SharedObjects(std::initializer_list<kube::json> objects) {
    for (const kube::json& object : objects) push_back(object);
  }

  void push_back(kube::ObjectPtr object) { objects_.push_back(std::move(object)); }
  void push_back(kube::json object) {
    objects_.push_back(std::make_shared<const kube::json>(std::move(object)));
  }
  void clear() { objects_.clear(); }
  Iterator begin() const { return Iterator(objects_.begin()); }
  Iterator end() const { return Iterator(objects_.end()); }
  size_t size() const { return objects_.size(); }
  bool empty() const { return objects_.empty(); }
  const kube::json& operator[](size_t i) const { return *objects_[i]; }

 private:
  std::vector<kube::ObjectPtr> objects_;
};

}  // namespace quern::control
