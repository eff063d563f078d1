// Requests on their way: pending BUNDLE SETTINGS CASE. Ends with 0, or tells what was not as it should be.
#include <specbeam.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr const char* ITEMS[] = {"1", "2", "7"};
specbeam_engine* engine;

#define HOLDS(condition)                                                                             \
  do {                                                                                               \
    if (!(condition)) {                                                                              \
      std::fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, specbeam_last_error());        \
      std::_Exit(1);                                                                                 \
    }                                                                                                \
  } while (false)

specbeam_pending* submitted(double timeout_ms = 0, std::int32_t priority = 0) {
  specbeam_ask ask;
  specbeam_ask_default(&ask);
  ask.timeout_ms = timeout_ms;
  ask.priority = priority;
  specbeam_pending* pending = nullptr;
  HOLDS(specbeam_submit(engine, ITEMS, 3, &ask, &pending) == SPECBEAM_OK);
  return pending;
}

specbeam_status waited(specbeam_pending* pending, double timeout_ms = -1) {
  specbeam_result* result = nullptr;
  const specbeam_status status = specbeam_wait(pending, timeout_ms, &result);
  HOLDS((status == SPECBEAM_OK) == (result != nullptr));
  HOLDS(status != SPECBEAM_OK || specbeam_result_size(result) == 20);
  specbeam_result_free(result);
  return status;
}

void count_one(void* data) { ++*static_cast<std::atomic<int>*>(data); }

void until(const std::atomic<int>& counter, int wanted) {
  while (counter < wanted) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  HOLDS(counter == wanted);  // and not once more
}

void timeouts() {
  specbeam_pending* late = submitted(0.001);
  HOLDS(waited(late) == SPECBEAM_TIMEOUT);
  HOLDS(std::strstr(specbeam_last_error(), "deadline") != nullptr);
  HOLDS(specbeam_done(late) == 1);
  HOLDS(waited(late, 0) == SPECBEAM_TIMEOUT);
  specbeam_pending_free(late);
  std::vector<specbeam_pending*> before;
  for (int i = 0; i < 100; ++i) before.push_back(submitted());
  specbeam_pending* slow = submitted();
  int times = 0;
  while (waited(slow, 0.1) != SPECBEAM_OK) ++times;
  HOLDS(times > 0);  // it was on its way then
  HOLDS(waited(slow, 1e300) == SPECBEAM_OK);
  HOLDS(waited(slow, 0) == SPECBEAM_OK);
  specbeam_pending_free(slow);
  for (specbeam_pending* one : before) specbeam_pending_free(one);
  specbeam_pending* patient = submitted(1e9);
  HOLDS(waited(patient) == SPECBEAM_OK);
  specbeam_pending_free(patient);
}

// Of many, those that are cancelled say so, unless they were answered before.
void cancelling() {
  std::map<specbeam_status, int> ended;
  std::atomic<int> told{0};
  std::vector<specbeam_pending*> all;
  for (int i = 0; i < 64; ++i) all.push_back(submitted());
  for (specbeam_pending* one : all) HOLDS(specbeam_notify(one, count_one, &told) == SPECBEAM_OK);
  for (std::size_t i = 1; i < all.size(); i += 2) specbeam_cancel(all[i]);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const specbeam_status status = waited(all[i]);
    HOLDS(status == SPECBEAM_OK || (i % 2 == 1 && status == SPECBEAM_CANCELLED));
    HOLDS(waited(all[i], 0) == status);
    specbeam_cancel(all[i]);  // nothing happens
    HOLDS(waited(all[i], 0) == status);
    ++ended[status];
  }
  HOLDS(ended[SPECBEAM_CANCELLED] > 0);
  until(told, 64);
  for (specbeam_pending* one : all) specbeam_pending_free(one);
}

void several_threads_wait() {
  for (int round = 0; round < 20; ++round) {
    specbeam_pending* pending = submitted();
    std::vector<specbeam_result*> results(8);
    std::vector<std::thread> threads;
    for (specbeam_result*& result : results) {
      threads.emplace_back([&result, pending] { HOLDS(specbeam_wait(pending, -1, &result) == SPECBEAM_OK); });
    }
    for (std::thread& thread : threads) thread.join();
    specbeam_pending_free(pending);
    const std::string first = specbeam_result_item(results[0], 0);
    specbeam_result_free(results[0]);
    for (std::size_t i = 1; i < results.size(); ++i) {
      HOLDS(first == specbeam_result_item(results[i], 0));  // each is its own
      specbeam_result_free(results[i]);
    }
  }
}

struct Told {
  specbeam_pending* pending;
  std::thread::id thread;
  std::atomic<int> times{0};
};

void read_own(void* data) {
  auto* told = static_cast<Told*>(data);
  told->thread = std::this_thread::get_id();
  HOLDS(specbeam_done(told->pending) == 1);
  HOLDS(waited(told->pending, 0) == SPECBEAM_OK);  // no lock is held
  ++told->times;
}

void notices() {
  Told before{submitted(), {}, {}};
  HOLDS(specbeam_notify(before.pending, read_own, &before) == SPECBEAM_OK);
  until(before.times, 1);
  HOLDS(specbeam_notify(before.pending, read_own, &before) == SPECBEAM_INVALID);
  specbeam_pending_free(before.pending);
  Told after{submitted(), {}, {}};
  HOLDS(waited(after.pending) == SPECBEAM_OK);
  HOLDS(specbeam_notify(after.pending, read_own, &after) == SPECBEAM_OK);
  HOLDS(after.times == 1);  // before it returns
  HOLDS(after.thread == std::this_thread::get_id());
  specbeam_pending_free(after.pending);
}

// The handle is gone: the request is cancelled, and who is told of that is told once.
void freed_on_their_way() {
  std::atomic<int> told{0};
  for (int i = 0; i < 200; ++i) {
    specbeam_pending* pending = submitted();
    HOLDS(specbeam_notify(pending, count_one, &told) == SPECBEAM_OK);
    specbeam_pending_free(pending);
  }
  until(told, 200);
  specbeam_pending* next = submitted();
  HOLDS(waited(next) == SPECBEAM_OK);
  specbeam_pending_free(next);
}

// All that were accepted are answered, and what they came from may be gone.
void closed_on_their_way() {
  specbeam_filter* filter = nullptr;
  HOLDS(specbeam_filter_create(engine, nullptr, 0, ITEMS, 1, &filter) == SPECBEAM_OK);
  std::vector<specbeam_pending*> all;
  for (int i = 0; i < 50; ++i) all.push_back(submitted());
  std::vector<std::thread> threads;
  for (specbeam_pending* one : all) threads.emplace_back([one] { HOLDS(waited(one) == SPECBEAM_OK); });
  specbeam_close(engine);
  for (specbeam_pending* one : all) HOLDS(specbeam_done(one) == 1);
  for (std::thread& thread : threads) thread.join();
  for (specbeam_pending* one : all) HOLDS(waited(one, 0) == SPECBEAM_OK);
  for (specbeam_pending* one : all) specbeam_pending_free(one);
  specbeam_filter_free(filter);
  engine = nullptr;
}

// The largest priority first: of many that wait, it is not the last one to be answered.
void priorities() {
  std::vector<specbeam_pending*> all;
  for (int i = 0; i < 250; ++i) all.push_back(submitted());
  specbeam_pending* urgent = submitted(0, 5);
  HOLDS(waited(urgent) == SPECBEAM_OK);
  HOLDS(specbeam_done(all.back()) == 0);
  for (specbeam_pending* one : all) specbeam_pending_free(one);
  specbeam_pending_free(urgent);
}

void free_one(void* data) { specbeam_pending_free(static_cast<specbeam_pending*>(data)); }

// From what is called at its end, a handle may be freed.
void freed_where_it_ends() {
  for (int i = 0; i < 50; ++i) {
    specbeam_pending* pending = submitted();
    HOLDS(specbeam_notify(pending, free_one, pending) == SPECBEAM_OK);
  }
}

void tell_status(void* data) { std::printf("%d\n", waited(static_cast<specbeam_pending*>(data))); }

// Not closed, and on their way: the end of the process refuses them.
void left_on_their_way() {
  for (int i = 0; i < 200; ++i) {
    specbeam_pending* pending = submitted();
    HOLDS(specbeam_notify(pending, tell_status, pending) == SPECBEAM_OK);
  }
  engine = nullptr;
}

}  // namespace

int main(int count, char** words) {
  const std::map<std::string, void (*)()> cases = {
      {"timeouts", timeouts}, {"cancelling", cancelling}, {"several_threads_wait", several_threads_wait},
      {"notices", notices}, {"freed_on_their_way", freed_on_their_way}, {"closed_on_their_way", closed_on_their_way},
      {"priorities", priorities}, {"freed_where_it_ends", freed_where_it_ends}, {"left_on_their_way", left_on_their_way}};
  if (count != 4) return 2;
  specbeam_options options;
  specbeam_options_default(&options);
  options.settings = words[2];
  HOLDS(specbeam_open(words[1], &options, &engine) == SPECBEAM_OK);
  cases.at(words[3])();
  specbeam_close(engine);
  return 0;
}
