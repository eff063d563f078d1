/*
 * SpecBeam from C++17: a thin wrapper of the C ABI in specbeam.h, which says what every call means. Handles free
 * themselves, errors are thrown as `specbeam::Error`, and texts are `std::string_view`s that live as long as what they
 * were asked of. An `Engine`, a `Filter` and a `Pending` may be used by any number of threads at once; moving and
 * destroying one is no use of it.
 */
#ifndef SPECBEAM_HPP
#define SPECBEAM_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "specbeam.h"

namespace specbeam {

using Milliseconds = std::chrono::duration<double, std::milli>;

/* Why a call has no result: a status, and in `what()` what was got, what was expected and what to do. */
class Error : public std::runtime_error {
 public:
  Error(specbeam_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  specbeam_status status() const noexcept { return status_; }

 private:
  specbeam_status status_;
};

namespace detail {

inline void check(specbeam_status status) {
  if (status != SPECBEAM_OK) throw Error(status, specbeam_last_error());
}

template <typename Handle, void (*free_handle)(Handle*)>
struct Free {
  void operator()(Handle* handle) const noexcept { free_handle(handle); }
};

template <typename Handle, void (*free_handle)(Handle*)>
using Owned = std::unique_ptr<Handle, Free<Handle, free_handle>>;

/* A text as the ABI has it, which ends at the first zero. */
inline const char* text(const std::string& value) {
  if (value.find('\0') != std::string::npos) throw Error(SPECBEAM_INVALID, "a text has a zero within; expected none.");
  return value.c_str();
}

inline const char* text(const std::optional<std::string>& value) { return value ? text(*value) : nullptr; }

inline std::vector<const char*> pointers(const std::vector<std::string>& texts) {
  std::vector<const char*> found;
  found.reserve(texts.size());
  for (const std::string& one : texts) found.push_back(text(one));
  return found;
}

inline std::string_view view(const char* text) { return text == nullptr ? std::string_view() : text; }

}  // namespace detail

/* What an engine is opened with: see `specbeam_options`. */
struct Options {
  std::optional<std::string> python;
  std::optional<std::string> settings;  // JSON
};

/* What may be recommended; of `Engine::filter`. */
class Filter {
 public:
  const specbeam_filter* get() const noexcept { return handle_.get(); }

 private:
  friend class Engine;
  explicit Filter(specbeam_filter* handle) : handle_(handle) {}
  detail::Owned<specbeam_filter, specbeam_filter_free> handle_;
};

/* What is asked besides a history: see `specbeam_ask`. */
struct Ask {
  std::int64_t k = 20;
  std::optional<std::string> user;
  const Filter* filter = nullptr;  // must live until the call returns
  bool exclude_history = false;
  std::int32_t priority = 0;
  Milliseconds timeout{0};  // 0: none
  std::optional<std::string> verification;  // JSON

  /* As the ABI has it; its texts are this one's. */
  specbeam_ask get() const {
    if (filter != nullptr && filter->get() == nullptr) {  // to the ABI, it would allow everything
      throw Error(SPECBEAM_INVALID, "the filter was moved away; name the one that it was moved to.");
    }
    specbeam_ask ask;
    specbeam_ask_default(&ask);
    ask.k = k;
    ask.user = detail::text(user);
    ask.filter = filter == nullptr ? nullptr : filter->get();
    ask.exclude_history = exclude_history;
    ask.priority = priority;
    ask.timeout_ms = timeout.count();
    ask.verification = detail::text(verification);
    return ask;
  }
};

/* One entry of a list; its texts are the `Result`'s. */
struct Item {
  std::string_view id;
  std::optional<std::string_view> title;
  double score;        // summed log-probability
  std::int64_t place;  // in the catalog
};

/* A ranked list, best first. */
class Result {
 public:
  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Item;
    using difference_type = std::ptrdiff_t;
    using pointer = const Item*;
    using reference = Item;

    Iterator(const Result* result, std::size_t rank) : result_(result), rank_(rank) {}
    Item operator*() const { return (*result_)[rank_]; }
    Iterator& operator++() { return ++rank_, *this; }
    Iterator operator++(int) { return Iterator(result_, rank_++); }
    bool operator==(const Iterator& other) const { return rank_ == other.rank_; }
    bool operator!=(const Iterator& other) const { return rank_ != other.rank_; }

   private:
    const Result* result_;
    std::size_t rank_;
  };

  std::size_t size() const noexcept { return specbeam_result_size(get()); }
  bool empty() const noexcept { return size() == 0; }
  Item operator[](std::size_t rank) const {
    const char* title = specbeam_result_title(get(), rank);
    return {detail::view(specbeam_result_item(get(), rank)),
            title == nullptr ? std::nullopt : std::optional<std::string_view>(title),
            specbeam_result_score(get(), rank), specbeam_result_place(get(), rank)};
  }
  /* The tokens of an item's identifier. */
  std::vector<std::string_view> identifier(std::size_t rank) const {
    std::vector<std::string_view> found(specbeam_result_tokens(get(), rank));
    for (std::size_t i = 0; i < found.size(); ++i) found[i] = detail::view(specbeam_result_token(get(), rank, i));
    return found;
  }
  Iterator begin() const { return Iterator(this, 0); }
  Iterator end() const { return Iterator(this, size()); }

  std::int64_t unknown_items() const noexcept { return specbeam_result_unknown_items(get()); }
  std::int64_t target_calls() const noexcept { return specbeam_result_target_calls(get()); }
  Milliseconds waited() const noexcept { return Milliseconds(specbeam_result_waited_ms(get())); }
  Milliseconds total() const noexcept { return Milliseconds(specbeam_result_total_ms(get())); }
  const specbeam_result* get() const noexcept { return handle_.get(); }

 private:
  friend class Engine;
  friend class Pending;
  explicit Result(specbeam_result* handle) : handle_(handle) {}
  detail::Owned<specbeam_result, specbeam_result_free> handle_;
};

/* A request on its way; destroying it cancels the request, unless it has ended. */
class Pending {
 public:
  /* The list, as soon as it is there. Throws `Error`: CANCELLED, CLOSED, FAILED, or TIMEOUT past its own deadline. */
  Result wait() const {
    specbeam_result* result = nullptr;
    detail::check(specbeam_wait(get(), -1, &result));
    return Result(result);
  }
  /* The same, if it is there in time; nothing where it is still on its way. */
  std::optional<Result> wait_for(Milliseconds timeout) const {
    specbeam_result* result = nullptr;
    const specbeam_status status = specbeam_wait(get(), timeout.count() < 0 ? 0 : timeout.count(), &result);
    if (status == SPECBEAM_TIMEOUT && !done()) return std::nullopt;
    if (status == SPECBEAM_TIMEOUT) return wait();  // it has ended meanwhile, or by its own deadline
    detail::check(status);
    return Result(result);
  }
  bool done() const noexcept { return specbeam_done(get()) != 0; }
  void cancel() const noexcept { specbeam_cancel(get()); }
  /* Call `call` once it has ended: see `specbeam_notify`. It must throw nothing. */
  void notify(std::function<void()> call) const {
    auto kept = std::make_unique<std::function<void()>>(std::move(call));
    detail::check(specbeam_notify(
        get(),
        [](void* data) {
          const std::unique_ptr<std::function<void()>> own(static_cast<std::function<void()>*>(data));
          (*own)();
        },
        kept.get()));
    kept.release();
  }
  specbeam_pending* get() const noexcept { return handle_.get(); }

 private:
  friend class Engine;
  explicit Pending(specbeam_pending* handle) : handle_(handle) {}
  detail::Owned<specbeam_pending, specbeam_pending_free> handle_;
};

/* Lists as arrays: of row r, item i at [r * k + i]. */
struct Lists {
  std::int64_t k;
  std::vector<std::int64_t> places;  // -1 behind a list's end
  std::vector<float> scores;         // -inf there
};

/* A bundle that is open. Its destructor answers what is on its way first. */
class Engine {
 public:
  explicit Engine(const std::string& path, const Options& options = {}) {
    if (specbeam_abi() != SPECBEAM_ABI) {
      throw Error(SPECBEAM_INVALID, std::string("this program was built for another ABI than libspecbeam ") +
                                        specbeam_version() + " has. Build it with that one's headers.");
    }
    specbeam_options told;
    specbeam_options_default(&told);
    told.python = detail::text(options.python);
    told.settings = detail::text(options.settings);
    specbeam_engine* engine = nullptr;
    detail::check(specbeam_open(path.c_str(), &told, &engine));
    handle_.reset(engine);
  }

  /* items: ids, oldest first. */
  Result recommend(const std::vector<std::string>& items, const Ask& ask = {}) const {
    const std::vector<const char*> pointers = detail::pointers(items);
    const specbeam_ask asked = ask.get();
    specbeam_result* result = nullptr;
    detail::check(specbeam_recommend(get(), pointers.data(), pointers.size(), &asked, &result));
    return Result(result);
  }

  Pending submit(const std::vector<std::string>& items, const Ask& ask = {}) const {
    const std::vector<const char*> pointers = detail::pointers(items);
    const specbeam_ask asked = ask.get();
    specbeam_pending* pending = nullptr;
    detail::check(specbeam_submit(get(), pointers.data(), pointers.size(), &asked, &pending));
    return Pending(pending);
  }

  /* tokens: row by row, all of `tokens.size() / lengths.size()` columns, of each the first `lengths`. */
  Lists recommend_tokens(const std::vector<std::int64_t>& tokens, const std::vector<std::int64_t>& lengths,
                         const Ask& ask = {}) const {
    const std::size_t rows = lengths.size(), columns = rows == 0 ? 0 : tokens.size() / rows;
    constexpr std::int64_t most = 1 << 24;  // of a list: more is what no catalog has
    if (rows * columns != tokens.size() || ask.k < 1 || ask.k > most) {
      throw Error(SPECBEAM_INVALID, "got " + std::to_string(tokens.size()) + " tokens for " + std::to_string(rows) +
                                        " rows and a k of " + std::to_string(ask.k) +
                                        "; expected rows of the same length, and a k of 1 to " + std::to_string(most) +
                                        ".");
    }
    const specbeam_ask asked = ask.get();
    const std::size_t size = rows * static_cast<std::size_t>(ask.k);
    Lists lists{ask.k, std::vector<std::int64_t>(size), std::vector<float>(size)};
    detail::check(specbeam_recommend_tokens(get(), tokens.data(), rows, columns, lengths.data(), &asked,
                                            lists.places.data(), lists.scores.data()));
    return lists;
  }

  /* allow: nothing: all items. */
  Filter filter(const std::optional<std::vector<std::string>>& allow, const std::vector<std::string>& deny = {}) const {
    static const char* const NONE[] = {nullptr};  // an empty list is not the same as none
    const std::vector<const char*> allowed = allow ? detail::pointers(*allow) : std::vector<const char*>();
    const std::vector<const char*> denied = detail::pointers(deny);
    specbeam_filter* filter = nullptr;
    detail::check(specbeam_filter_create(get(), !allow ? nullptr : allowed.empty() ? NONE : allowed.data(),
                                         allowed.size(), denied.data(), denied.size(), &filter));
    return Filter(filter);
  }

  std::size_t catalog_size() const noexcept { return specbeam_catalog_size(get()); }
  /* The id at a place of the catalog; nothing: there is none. It lives as long as the engine. */
  std::optional<std::string_view> catalog_item(std::int64_t place) const noexcept {
    const char* found = specbeam_catalog_item(get(), place);
    return found == nullptr ? std::nullopt : std::optional<std::string_view>(found);
  }
  specbeam_engine* get() const noexcept { return handle_.get(); }

 private:
  detail::Owned<specbeam_engine, specbeam_close> handle_;
};

}  // namespace specbeam

#endif
