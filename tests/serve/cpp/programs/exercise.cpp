// Everything that the library does, a few times, from several threads: for what watches memory and threads.
//   exercise BUNDLE [leak] [dangling] [overflow] [race]: with faults of its own, which must be seen.
#include <specbeam.hpp>

#include <atomic>
#include <iostream>
#include <limits>
#include <string>
#include <thread>
#include <vector>

namespace {

const std::vector<std::string> HISTORY = {"1", "2", "3"};
std::uint64_t unguarded = 0;

specbeam::Ask ask_of(int number, const specbeam::Filter& filter) {
  specbeam::Ask ask;
  ask.k = 5;
  ask.user = "u" + std::to_string(number);
  if (number % 2 == 1) ask.verification = R"({"mode": "sampled", "seed": 7})";
  if (number % 3 == 1) ask.filter = &filter;
  ask.exclude_history = number % 4 == 1;
  return ask;
}

std::size_t read(const specbeam::Result& result) {
  std::size_t bytes = 0;
  for (const specbeam::Item& item : result) bytes += item.id.size() + (item.title ? item.title->size() : 0);
  for (std::size_t rank = 0; rank < result.size(); ++rank) bytes += result.identifier(rank).size();
  return bytes + static_cast<std::size_t>(result.target_calls());
}

template <typename Call>
void refused(specbeam_status expected, Call&& call) {
  try {
    call();
  } catch (const specbeam::Error& error) {
    if (error.status() == expected && *error.what() != '\0') return;
    throw;
  }
  throw std::runtime_error("a call that must fail did not: status " + std::to_string(expected));
}

// One caller of several.
void call(const specbeam::Engine& engine, int caller) {
  for (int number = 0; number < 2; ++number) {
    const specbeam::Filter filter = engine.filter(std::nullopt, {"3", "4"});
    const specbeam::Ask ask = ask_of(caller + number, filter);
    if (read(engine.recommend(HISTORY, ask)) == 0) throw std::runtime_error("an empty list");
    const specbeam::Pending kept = engine.submit(HISTORY, ask), dropped = engine.submit(HISTORY, ask);
    std::atomic<int> told{0};
    kept.notify([&told] { ++told; });
    dropped.cancel();
    std::thread other([&kept] { read(kept.wait()); });
    read(kept.wait());
    other.join();
    while (told == 0) std::this_thread::yield();  // waiters and whoever is told are woken in no order
    engine.submit(HISTORY, ask);                  // freed while it is on its way
    refused(SPECBEAM_INVALID, [&] { engine.recommend({"none"}, ask); });
    specbeam::Ask short_lists;
    short_lists.k = 4;
    const specbeam::Lists lists = engine.recommend_tokens({1, 5, 9, 1, 5, 0}, {3, 2}, short_lists);
    if (lists.places.size() != 8 || !engine.catalog_item(lists.places[0])) throw std::runtime_error("no lists");
  }
}

void ill(const specbeam::Engine& engine, const std::string& fault) {
  specbeam_result* result = nullptr;
  const char* const items[] = {"1"};
  if (specbeam_recommend(engine.get(), items, 1, nullptr, &result) != SPECBEAM_OK) throw std::runtime_error("no list");
  const char* text = specbeam_result_item(result, 0);
  if (fault != "leak") specbeam_result_free(result);
  if (fault == "dangling") std::cout << text << '\n';
  if (fault == "overflow") {
    volatile int most = std::numeric_limits<int>::max();
    most = most + 1;
  }
  if (fault == "race") {
    std::thread other([] { ++unguarded; });
    ++unguarded;
    other.join();
  }
}

}  // namespace

int main(int count, char** words) {
  if (count < 2) return 2;
  try {
    specbeam::Options options;
    options.settings = R"({"threads": 1, "batch_size": 4})";
    refused(SPECBEAM_BUNDLE, [&] { specbeam::Engine("/nowhere", options); });
    for (int turn = 0; turn < 2; ++turn) {
      const specbeam::Engine engine(words[1], options);
      std::vector<std::thread> callers;
      for (int caller = 0; caller < 3; ++caller) callers.emplace_back(call, std::cref(engine), caller);
      for (std::thread& caller : callers) caller.join();
      for (int fault = 2; fault < count; ++fault) ill(engine, words[fault]);
    }
    std::cout << "done\n";
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
