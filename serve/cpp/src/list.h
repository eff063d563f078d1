// A ranked list, copied out of Python: read by any thread, without its lock.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

namespace inside {

class List {
 public:
  // answer: of `Embedded.answer`; the GIL is held.
  explicit List(const pybind11::handle& answer);

  std::size_t size() const { return entries_.size(); }
  const char* item(std::size_t rank) const { return rank < size() ? text(entries_[rank].item) : nullptr; }
  const char* title(std::size_t rank) const { return rank < size() ? text(entries_[rank].title) : nullptr; }
  double score(std::size_t rank) const;
  std::int64_t place(std::size_t rank) const { return rank < size() ? entries_[rank].place : -1; }
  std::size_t tokens(std::size_t rank) const { return rank < size() ? entries_[rank].tokens : 0; }
  const char* token(std::size_t rank, std::size_t token) const;

  std::int64_t unknown_items = 0, target_calls = 0;
  double waited = 0, seconds = 0;

 private:
  static constexpr std::size_t NONE = static_cast<std::size_t>(-1);
  struct Entry {
    std::size_t item, title;  // where their text begins
    double score;
    std::int64_t place;
    std::size_t first, tokens;  // of `tokens_`
  };

  const char* text(std::size_t at) const { return at == NONE ? nullptr : texts_.data() + at; }
  std::size_t kept(const pybind11::handle& text);

  std::vector<Entry> entries_;
  std::vector<std::size_t> tokens_;
  std::string texts_;  // each ends with a zero
};

}  // namespace inside
