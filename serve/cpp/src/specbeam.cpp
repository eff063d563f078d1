// The functions of the ABI: each checks what it is given, and leaves the rest to the others.
#include "specbeam.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>

#include "asked.h"
#include "engine.h"
#include "failure.h"
#include "interpreter.h"
#include "pending.h"

namespace py = pybind11;
using inside::Failure;
using inside::guarded;

namespace {

constexpr double LONGEST = 1e11;  // milliseconds: three years

template <typename Handle>
void check(const Handle* handle, const char* name) {
  if (handle == nullptr) throw Failure{SPECBEAM_INVALID, std::string(name) + " is NULL."};
}

// Where a result goes; NULL until there is one.
template <typename Handle>
void check_out(Handle** out, const char* name) {
  check(out, name);
  *out = nullptr;
}

void check_time(double milliseconds, const char* name) {
  if (!(milliseconds >= 0 && milliseconds <= LONGEST)) {
    throw Failure{SPECBEAM_INVALID, std::string(name) + " is " + std::to_string(milliseconds) +
                                        ", expected milliseconds, 0 or more (0: no limit), and 1e11 at most."};
  }
}

std::unique_ptr<specbeam_pending> submitted(specbeam_engine* engine, const char* const* items, size_t count,
                                            const specbeam_ask* told) {
  check(engine, "engine");
  engine->shared->check_here();
  const specbeam_ask ask = inside::asked(told);
  check_time(ask.timeout_ms, "timeout_ms");
  if (ask.filter != nullptr && ask.filter->engine != engine->shared) {
    throw Failure{SPECBEAM_INVALID, "the filter was prepared by another engine. Prepare it by this one."};
  }
  auto pending = std::make_unique<specbeam_pending>();
  pending->engine = engine->shared;
  pending->ending = std::make_shared<inside::Ending>();
  inside::Acquired acquired;
  const py::object user = ask.user == nullptr ? py::none() : py::object(inside::text(ask.user, "user"));
  const py::object filter =
      ask.filter == nullptr ? py::none() : py::reinterpret_borrow<py::object>(ask.filter->python.get());
  const py::str verification = inside::text(ask.verification == nullptr ? "" : ask.verification, "verification");
  pending->future = inside::Reference(engine->shared->python().attr("submit")(
      inside::texts(items, count, "items"), ask.k, user, filter, ask.exclude_history != 0, ask.priority,
      ask.timeout_ms, verification, inside::ending_call(pending->ending)));
  return pending;
}

void cancel(specbeam_pending* pending) {
  if (pending->ending->ended()) return;
  inside::Acquired acquired;
  pending->future.get().attr("cancel")();
}

// What of an `ask` is not for prompts.
void check_prompts_ask(const specbeam_ask& ask) {
  check_time(ask.timeout_ms, "timeout_ms");
  if (ask.user != nullptr || ask.filter != nullptr || ask.exclude_history != 0 || ask.verification != nullptr) {
    throw Failure{SPECBEAM_INVALID,
                  "user, filter, exclude_history and verification go with histories, not with tokens. Leave them out."};
  }
}

template <typename T>
py::array_t<T> copied(const T* values, py::array::ShapeContainer shape) {
  py::array_t<T> made(shape);
  std::memcpy(made.mutable_data(), values, static_cast<std::size_t>(made.nbytes()));
  return made;
}

}  // namespace

extern "C" {

const char* specbeam_version(void) { return SPECBEAM_VERSION; }
int specbeam_abi(void) { return SPECBEAM_ABI; }
const char* specbeam_last_error(void) { return inside::last_error().c_str(); }

specbeam_status specbeam_open(const char* path, const specbeam_options* told, specbeam_engine** engine) {
  return guarded([&] {
    check_out(engine, "engine");
    check(path, "path");
    const specbeam_options options = inside::asked(told);
    inside::start(options.python);
    auto made = std::make_unique<specbeam_engine>();
    made->shared = inside::Engine::open(path, options.settings == nullptr ? "" : options.settings);
    *engine = made.release();
  });
}

void specbeam_close(specbeam_engine* engine) {
  if (engine == nullptr) return;
  if (!engine->shared->here()) return;  // what its parent has is not to be freed here
  guarded([&] { engine->shared->close(true); });
  delete engine;
}

specbeam_status specbeam_filter_create(specbeam_engine* engine, const char* const* allow, size_t allowed,
                                       const char* const* deny, size_t denied, specbeam_filter** filter) {
  return guarded([&] {
    check_out(filter, "filter");
    check(engine, "engine");
    engine->shared->check_here();
    auto made = std::make_unique<specbeam_filter>();
    made->engine = engine->shared;
    inside::Acquired acquired;
    const py::object all = allow == nullptr && allowed == 0 ? py::none()
                                                            : py::object(inside::texts(allow, allowed, "allow"));
    made->python = inside::Reference(
        engine->shared->python().attr("prepared")(all, inside::texts(deny, denied, "deny")));
    *filter = made.release();
  });
}

void specbeam_filter_free(specbeam_filter* filter) {
  if (filter != nullptr && filter->engine->here()) delete filter;
}

specbeam_status specbeam_recommend(specbeam_engine* engine, const char* const* items, size_t count,
                                   const specbeam_ask* ask, specbeam_result** result) {
  return guarded([&] {
    check_out(result, "result");
    const std::unique_ptr<specbeam_pending> pending = submitted(engine, items, count, ask);
    inside::Released released;
    pending->ending->wait(-1);
    *result = pending->result();
  });
}

specbeam_status specbeam_recommend_tokens(specbeam_engine* engine, const int64_t* tokens, size_t rows, size_t columns,
                                          const int64_t* lengths, const specbeam_ask* told, int64_t* items,
                                          float* scores) {
  return guarded([&] {
    check(engine, "engine");
    check(tokens, "tokens");
    check(lengths, "lengths");
    check(items, "items");
    check(scores, "scores");
    engine->shared->check_here();
    const specbeam_ask ask = inside::asked(told);
    check_prompts_ask(ask);
    const auto height = static_cast<py::ssize_t>(rows), width = static_cast<py::ssize_t>(columns);
    if (rows == 0 || columns == 0 || height < 0 || width <= 0 ||
        height > std::numeric_limits<py::ssize_t>::max() / 8 / width) {
      throw Failure{SPECBEAM_INVALID, "tokens is an array of " + std::to_string(rows) + " rows and " +
                                          std::to_string(columns) +
                                          " columns; expected some of both, and what memory holds."};
    }
    inside::Acquired acquired;
    const py::tuple found = engine->shared->python().attr("recommend_arrays")(
        copied(tokens, {height, width}), copied(lengths, {height}), ask.k, ask.priority, ask.timeout_ms);
    const auto places = found[0].cast<py::array_t<int64_t, py::array::c_style | py::array::forcecast>>();
    const auto values = found[1].cast<py::array_t<float, py::array::c_style | py::array::forcecast>>();
    std::memcpy(items, places.data(), static_cast<std::size_t>(places.nbytes()));
    std::memcpy(scores, values.data(), static_cast<std::size_t>(values.nbytes()));
  });
}

size_t specbeam_catalog_size(const specbeam_engine* engine) { return engine == nullptr ? 0 : engine->shared->items(); }

const char* specbeam_catalog_item(const specbeam_engine* engine, int64_t place) {
  return engine == nullptr ? nullptr : engine->shared->item(place);
}

specbeam_status specbeam_submit(specbeam_engine* engine, const char* const* items, size_t count,
                                const specbeam_ask* ask, specbeam_pending** pending) {
  return guarded([&] {
    check_out(pending, "pending");
    *pending = submitted(engine, items, count, ask).release();
  });
}

specbeam_status specbeam_wait(specbeam_pending* pending, double timeout_ms, specbeam_result** result) {
  return guarded([&] {
    check_out(result, "result");
    check(pending, "pending");
    pending->engine->check_here();
    if (std::isnan(timeout_ms)) throw Failure{SPECBEAM_INVALID, "timeout_ms is not a number."};
    inside::Released released;
    if (!pending->ending->wait(timeout_ms)) {
      throw Failure{SPECBEAM_TIMEOUT, "the request is still on its way after " + std::to_string(timeout_ms) +
                                          " ms. Wait again, or cancel it."};
    }
    *result = pending->result();
  });
}

int specbeam_done(const specbeam_pending* pending) { return pending != nullptr && pending->ending->ended() ? 1 : 0; }

specbeam_status specbeam_notify(specbeam_pending* pending, void (*call)(void*), void* data) {
  return guarded([&] {
    check(pending, "pending");
    if (call == nullptr) throw Failure{SPECBEAM_INVALID, "call is NULL, expected a function."};
    pending->ending->notify(call, data);
  });
}

void specbeam_cancel(specbeam_pending* pending) {
  if (pending != nullptr && pending->engine->here()) guarded([&] { cancel(pending); });
}

void specbeam_pending_free(specbeam_pending* pending) {
  if (pending == nullptr || !pending->engine->here()) return;
  specbeam_cancel(pending);
  delete pending;
}

size_t specbeam_result_size(const specbeam_result* result) { return result == nullptr ? 0 : result->list->size(); }

const char* specbeam_result_item(const specbeam_result* result, size_t rank) {
  return result == nullptr ? nullptr : result->list->item(rank);
}

const char* specbeam_result_title(const specbeam_result* result, size_t rank) {
  return result == nullptr ? nullptr : result->list->title(rank);
}

double specbeam_result_score(const specbeam_result* result, size_t rank) {
  return result == nullptr ? std::numeric_limits<double>::quiet_NaN() : result->list->score(rank);
}

int64_t specbeam_result_place(const specbeam_result* result, size_t rank) {
  return result == nullptr ? -1 : result->list->place(rank);
}

size_t specbeam_result_tokens(const specbeam_result* result, size_t rank) {
  return result == nullptr ? 0 : result->list->tokens(rank);
}

const char* specbeam_result_token(const specbeam_result* result, size_t rank, size_t token) {
  return result == nullptr ? nullptr : result->list->token(rank, token);
}

int64_t specbeam_result_unknown_items(const specbeam_result* result) {
  return result == nullptr ? 0 : result->list->unknown_items;
}

int64_t specbeam_result_target_calls(const specbeam_result* result) {
  return result == nullptr ? 0 : result->list->target_calls;
}

double specbeam_result_waited_ms(const specbeam_result* result) {
  return result == nullptr ? 0.0 : 1000 * result->list->waited;
}

double specbeam_result_total_ms(const specbeam_result* result) {
  return result == nullptr ? 0.0 : 1000 * result->list->seconds;
}

void specbeam_result_free(specbeam_result* result) { delete result; }

}  // extern "C"
