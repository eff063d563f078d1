// Some of everything, for sanitizers: few BUNDLE SETTINGS [leak|race|overrun]. With the third word, this program itself
// is at fault, so that the tool which watches it can be seen to tell.
#include <specbeam.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

const std::vector<std::string> ITEMS = {"1", "2", "7"};
volatile long shared_number = 0;

void faulty(const std::string& how, const specbeam::Engine& engine) {
  const char* items[] = {"1", "2"};
  specbeam_result* result = nullptr;
  specbeam::detail::check(specbeam_recommend(engine.get(), items, 2, nullptr, &result));
  if (how == "leak") return;
  if (how == "overrun") std::printf("%d\n", specbeam_result_item(result, 0)[4096]);
  specbeam_result_free(result);
  const auto count = [] {
    for (int i = 0; i < 1000; ++i) shared_number = shared_number + 1;
  };
  std::thread other(count);
  if (how != "race") other.join();
  count();
  if (other.joinable()) other.join();
}

void ask(const specbeam::Engine& engine, const specbeam::Filter& filter, int number) {
  specbeam::Ask asked;
  asked.k = 5;
  asked.user = "u" + std::to_string(number);
  if (number % 2 == 1) asked.filter = &filter;
  if (number % 3 == 1) asked.verification = R"({"mode": "sampled", "seed": 7})";
  const specbeam::Result result = engine.recommend(ITEMS, asked);
  std::size_t letters = 0, rank = 0;
  for (const specbeam::Item& item : result) {
    letters += item.id.size() + item.title.value_or("").size();
    for (const std::string_view token : result.identifier(rank)) letters += token.size();
    letters += engine.catalog_item(item.place)->size();
    ++rank;
  }
  if (result.size() != 5 || letters < 20) std::abort();
  const specbeam::Pending first = engine.submit(ITEMS, asked), second = engine.submit(ITEMS, asked);
  second.notify([] {});
  second.cancel();
  std::thread other([&first] { first.wait(); });
  first.wait_for(specbeam::Milliseconds(1));
  other.join();
  engine.submit(ITEMS, asked);  // and nobody waits for it
}

void refused(const specbeam::Engine& engine) {
  specbeam::Ask asked;
  asked.timeout = specbeam::Milliseconds(0.001);
  for (int i = 0; i < 3; ++i) {
    try {
      engine.recommend(i == 0 ? std::vector<std::string>{"none"} : ITEMS, asked);
    } catch (const specbeam::Error& error) {
      if (error.status() != (i == 0 ? SPECBEAM_INVALID : SPECBEAM_TIMEOUT)) std::abort();
      continue;
    }
    std::abort();
  }
}

void tokens(const specbeam::Engine& engine) {
  specbeam::Ask asked;
  asked.k = 5;
  const specbeam::Lists lists = engine.recommend_tokens({2, 9, 2, 10}, {2, 2}, asked);
  if (lists.places.size() != 10 || engine.catalog_item(lists.places[0]).value_or("").empty()) std::abort();
}

void run(const char* bundle, const char* settings, const std::string& how) {
  const specbeam::Engine engine(bundle, {std::nullopt, settings});
  const specbeam::Filter filter = engine.filter({{"1", "2", "3", "4", "5", "6", "7", "8"}}, {"9"});
  std::vector<std::thread> threads;
  for (int number = 0; number < 4; ++number) {
    threads.emplace_back([&, number] {
      for (int i = 0; i < 3; ++i) ask(engine, filter, number + i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  refused(engine);
  tokens(engine);
  if (!how.empty()) faulty(how, engine);
}

}  // namespace

int main(int count, char** words) {
  if (count < 3) return 2;
  try {
    for (int time = 0; time < 2; ++time) run(words[1], words[2], count > 3 ? words[3] : "");
    std::printf("done\n");
    return 0;
  } catch (const specbeam::Error& error) {
    std::fprintf(stderr, "%d: %s\n", error.status(), error.what());
    return 1;
  }
}
