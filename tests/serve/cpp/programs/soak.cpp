// Many calls by many threads: soak BUNDLE SETTINGS THREADS CALLS, each thread so many after a warm-up of as many in all
// as one. Prints a JSON object: calls, those whose list was another than the first time, seconds, and the memory in use
// (KiB) after the warm-up and at the end.
#include <specbeam.hpp>

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Case {
  std::vector<std::string> items;
  specbeam::Ask ask;
  std::string expected;
};

std::string listed(const specbeam::Engine& engine, const Case& one) {
  std::string text;
  for (const specbeam::Item& item : engine.recommend(one.items, one.ask)) text.append(item.id).append(" ");
  return text;
}

std::vector<Case> cases(const specbeam::Engine& engine, const specbeam::Filter& filter) {
  std::vector<Case> made;
  for (int number = 0; number < 60; ++number) {
    Case one;
    for (int i = 0; i <= number % 7; ++i) one.items.push_back(std::to_string((number * 5 + i) % 40));
    one.ask.k = 1 + number % 10;
    one.ask.user = "u" + std::to_string(number);
    if (number % 3 == 1) one.ask.verification = R"({"mode": "sampled", "seed": 7})";
    if (number % 3 == 2) one.ask.filter = &filter;
    one.expected = listed(engine, one);
    made.push_back(std::move(one));
  }
  return made;
}

long resident() {
  long size = 0, pages = 0;
  std::ifstream("/proc/self/statm") >> size >> pages;
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

long run(const specbeam::Engine& engine, const std::vector<Case>& all, long count, long calls) {
  std::atomic<long> different{0};
  std::vector<std::thread> threads;
  for (long thread = 0; thread < count; ++thread) {
    threads.emplace_back([&, thread] {
      for (long call = 0; call < calls; ++call) {
        const Case& one = all[static_cast<std::size_t>(thread * 7 + call) % all.size()];
        different += listed(engine, one) != one.expected;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return different;
}

}  // namespace

int main(int count, char** words) {
  if (count != 5) return 2;
  try {
    const long threads = std::atol(words[3]), calls = std::atol(words[4]);
    const specbeam::Engine engine(words[1], {std::nullopt, words[2]});
    const specbeam::Filter filter = engine.filter(std::nullopt, {"3", "4", "5"});
    const std::vector<Case> all = cases(engine, filter);
    long different = run(engine, all, threads, calls / threads);
    const long warm = resident();
    const auto start = std::chrono::steady_clock::now();
    different += run(engine, all, threads, calls);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    std::printf(R"({"calls": %ld, "different": %ld, "seconds": %.3f, "warm_kib": %ld, "end_kib": %ld})", threads * calls,
                different, taken.count(), warm, resident());
    return 0;
  } catch (const specbeam::Error& error) {
    std::cerr << error.status() << ": " << error.what() << '\n';
    return 1;
  }
}
