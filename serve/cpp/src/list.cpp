#include "list.h"

#include <limits>

namespace py = pybind11;

namespace inside {

List::List(const py::handle& answer) {
  const py::tuple items = answer.attr("items");
  const py::list places = answer.attr("places");
  entries_.reserve(items.size());
  for (std::size_t rank = 0; rank < items.size(); ++rank) {
    const py::object entry = items[rank];
    const py::tuple identifier = entry.attr("identifier");
    Entry one{kept(entry.attr("item")),          kept(entry.attr("title")), entry.attr("score").cast<double>(),
              places[rank].cast<std::int64_t>(), tokens_.size(),            identifier.size()};
    for (const py::handle& token : identifier) tokens_.push_back(kept(token));
    entries_.push_back(one);
  }
  unknown_items = answer.attr("unknown_items").cast<std::int64_t>();
  target_calls = answer.attr("target_calls").cast<std::int64_t>();
  waited = answer.attr("waited").cast<double>();
  seconds = answer.attr("seconds").cast<double>();
}

double List::score(std::size_t rank) const {
  return rank < size() ? entries_[rank].score : std::numeric_limits<double>::quiet_NaN();
}

const char* List::token(std::size_t rank, std::size_t token) const {
  return token < tokens(rank) ? text(tokens_[entries_[rank].first + token]) : nullptr;
}

std::size_t List::kept(const py::handle& text) {
  if (text.is_none()) return NONE;
  Py_ssize_t length = 0;
  const char* begin = PyUnicode_AsUTF8AndSize(text.ptr(), &length);
  if (begin == nullptr) throw py::error_already_set();
  const std::size_t at = texts_.size();
  texts_.append(begin, static_cast<std::size_t>(length)).push_back('\0');
  return at;
}

}  // namespace inside
