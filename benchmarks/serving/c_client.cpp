// Callers of the C ABI in a process of their own, told what to do line by line; benchmarks.serving.ways runs it.
//
// c_client BUNDLE SETTINGS HISTORIES K
// SETTINGS: JSON, see docs/embedding.md. HISTORIES: a line a user, "user<TAB>id id id ...".
// Commands on standard input, each answered by lines on standard output:
//   one N                  microseconds of user N's list, and those that were not in the search
//   load CALLERS SECONDS   requests answered, and seconds
//   lists WAY K VERIFICATION EXCLUDE DENY   a line a user: "id<TAB>score" for every item, all tab-separated
//                          WAY: c, or cpp for the wrapper of C++; VERIFICATION: JSON without blanks, or -; EXCLUDE: 0
//                          or 1; DENY: a file of ids, or -
#include <specbeam.h>
#include <specbeam.hpp>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Listed = std::unique_ptr<specbeam_result, void (*)(specbeam_result*)>;

struct User {
  std::string name;
  std::vector<std::string> items;
  std::vector<const char*> pointers;
};

void check(specbeam_status status) {
  if (status == SPECBEAM_OK) return;
  std::fprintf(stderr, "%d: %s\n", status, specbeam_last_error());
  std::exit(1);
}

std::vector<User> read(const char* path) {
  std::vector<User> users;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    users.emplace_back();
    std::istringstream words(line);
    std::getline(words, users.back().name, '\t');
    for (std::string item; words >> item;) users.back().items.push_back(item);
  }
  for (User& user : users) {
    for (const std::string& item : user.items) user.pointers.push_back(item.c_str());
  }
  return users;
}

Listed ask(specbeam_engine* engine, const User& user, const specbeam_ask& asked) {
  specbeam_result* result = nullptr;
  check(specbeam_recommend(engine, user.pointers.data(), user.pointers.size(), &asked, &result));
  return Listed(result, specbeam_result_free);
}

void one(specbeam_engine* engine, const User& user, const specbeam_ask& asked) {
  const auto start = Clock::now();
  const Listed result = ask(engine, user, asked);
  const std::chrono::duration<double, std::micro> taken = Clock::now() - start;
  const double search = specbeam_result_total_ms(result.get()) - specbeam_result_waited_ms(result.get());
  std::cout << taken.count() << ' ' << taken.count() - 1000 * search << std::endl;
}

void load(specbeam_engine* engine, const std::vector<User>& users, const specbeam_ask& asked, int callers,
          double seconds) {
  std::atomic<std::size_t> next{0}, answered{0};
  const auto start = Clock::now();
  const auto until = start + std::chrono::duration<double>(seconds);
  std::vector<std::thread> threads;
  for (int i = 0; i < callers; ++i) {
    threads.emplace_back([&] {
      while (Clock::now() < until) {
        ask(engine, users[next++ % users.size()], asked);
        ++answered;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::chrono::duration<double> taken = Clock::now() - start;
  std::cout << answered << ' ' << taken.count() << std::endl;
}

// What is asked of all users.
struct Asked {
  explicit Asked(std::istream& words) {
    std::string deny_file, verification, exclude;
    words >> k >> verification >> exclude >> deny_file;
    if (verification != "-") this->verification = verification;
    this->exclude = exclude == "1";
    std::ifstream file(deny_file);
    for (std::string line; deny_file != "-" && std::getline(file, line);) deny.push_back(line);
  }
  std::int64_t k = 0;
  std::optional<std::string> verification;
  bool exclude = false;
  std::vector<std::string> deny;
};

void print(const specbeam_result* result) {
  for (std::size_t rank = 0; rank < specbeam_result_size(result); ++rank) {
    const char* blank = rank == 0 ? "" : "\t";
    std::printf("%s%s\t%.17g", blank, specbeam_result_item(result, rank), specbeam_result_score(result, rank));
  }
  std::printf("\n");
}

void lists_in_c(specbeam_engine* engine, const std::vector<User>& users, const Asked& told) {
  specbeam_ask asked;
  specbeam_ask_default(&asked);
  asked.k = told.k;
  asked.verification = told.verification ? told.verification->c_str() : nullptr;
  asked.exclude_history = told.exclude;
  std::vector<const char*> denied;
  for (const std::string& item : told.deny) denied.push_back(item.c_str());
  specbeam_filter* filter = nullptr;
  check(specbeam_filter_create(engine, nullptr, 0, denied.data(), denied.size(), &filter));
  asked.filter = filter;
  for (const User& user : users) {
    asked.user = user.name.c_str();
    print(ask(engine, user, asked).get());
  }
  specbeam_filter_free(filter);
}

void lists_in_cpp(const specbeam::Engine& engine, const std::vector<User>& users, const Asked& told) {
  const specbeam::Filter filter = engine.filter(std::nullopt, told.deny);
  specbeam::Ask asked;
  asked.k = told.k;
  asked.verification = told.verification;
  asked.exclude_history = told.exclude;
  asked.filter = &filter;
  for (const User& user : users) {
    asked.user = user.name;
    print(engine.recommend(user.items, asked).get());
  }
}

}  // namespace

int main(int count, char** words) {
  if (count != 5) {
    std::fprintf(stderr, "c_client BUNDLE SETTINGS HISTORIES K\n");
    return 2;
  }
  const specbeam::Engine opened(words[1], {std::nullopt, words[2]});
  specbeam_engine* engine = opened.get();
  const std::vector<User> users = read(words[3]);
  specbeam_ask asked;
  specbeam_ask_default(&asked);
  asked.k = std::atoll(words[4]);
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream told(line);
    std::string command, way;
    told >> command;
    if (command == "one") {
      std::size_t number = 0;
      told >> number;
      one(engine, users.at(number), asked);
    } else if (command == "load") {
      int callers = 0;
      double seconds = 0;
      told >> callers >> seconds;
      load(engine, users, asked, callers, seconds);
    } else if (command == "lists" && told >> way) {
      if (way == "c") lists_in_c(engine, users, Asked(told));
      if (way == "cpp") lists_in_cpp(opened, users, Asked(told));
      std::fflush(stdout);
    }
  }
  return 0;
}
