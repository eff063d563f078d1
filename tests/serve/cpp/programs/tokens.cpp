// Lists of prompts as tokens: tokens BUNDLE SETTINGS K, and on standard input rows, columns, lengths and tokens. Printed
// is, by the C ABI and then by the wrapper, a line a row: "id score" of every entry, "-" behind a list's end.
#include <specbeam.hpp>

#include <cstdint>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

namespace {

void print(const specbeam::Engine& engine, const std::vector<std::int64_t>& places, const std::vector<float>& scores,
           std::size_t rows) {
  const std::size_t k = places.size() / rows;
  for (std::size_t at = 0; at < places.size(); ++at) {
    std::cout << engine.catalog_item(places[at]).value_or("-") << ' ' << std::setprecision(9) << scores[at]
              << ((at + 1) % k == 0 ? '\n' : ' ');
  }
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) return 2;
  try {
    const specbeam::Engine engine(words[1], {std::nullopt, words[2]});
    std::size_t rows = 0, columns = 0;
    std::cin >> rows >> columns;
    std::vector<std::int64_t> lengths(rows), tokens(rows * columns);
    for (std::int64_t& length : lengths) std::cin >> length;
    for (std::int64_t& token : tokens) std::cin >> token;
    specbeam::Ask ask;
    ask.k = std::atoll(words[3]);
    std::vector<std::int64_t> places(rows * static_cast<std::size_t>(ask.k));
    std::vector<float> scores(places.size());
    const specbeam_ask asked = ask.get();
    specbeam::detail::check(specbeam_recommend_tokens(engine.get(), tokens.data(), rows, columns, lengths.data(),
                                                      &asked, places.data(), scores.data()));
    print(engine, places, scores, rows);
    const specbeam::Lists lists = engine.recommend_tokens(tokens, lengths, ask);
    print(engine, lists.places, lists.scores, rows);
    return 0;
  } catch (const specbeam::Error& error) {
    std::cerr << error.status() << ": " << error.what() << '\n';
    return 1;
  }
}
