// What the wrapper of C++ refuses by itself: refused BUNDLE prints a line for each, its status and what it says.
#include <specbeam.hpp>

#include <cstdint>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <utility>

int main(int, char** words) {
  specbeam::Engine engine(words[1]);
  specbeam::Filter filter = engine.filter(std::nullopt, {"1"});
  const specbeam::Filter moved = std::move(filter);
  const auto refused = [](const std::string& name, const std::function<void()>& call) {
    try {
      call();
      std::cout << name << "\tnot refused\n";
    } catch (const specbeam::Error& error) {
      std::cout << name << '\t' << error.status() << ' ' << error.what() << '\n';
    }
  };
  specbeam::Ask ask;
  ask.filter = &filter;
  refused("filter moved away", [&] { engine.recommend({"2", "3"}, ask); });
  ask.filter = nullptr;
  refused("zero in an id", [&] { engine.recommend({std::string("2\0x", 3)}, ask); });
  ask.user = std::string("a\0b", 3);
  refused("zero in a user", [&] { engine.submit({"2"}, ask); });
  ask.user.reset();
  ask.k = INT64_MAX;
  refused("k beyond all", [&] { engine.recommend_tokens({1, 2}, {2}, ask); });
  const specbeam::Engine other = std::move(engine);
  refused("engine moved away", [&] { engine.recommend({"2"}); });
  return other.recommend({"2", "3"}).size() == 20 ? 0 : 1;
}
