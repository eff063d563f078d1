// As lists.c, by the wrapper of C++: all requests are on their way at once.
#include <specbeam.hpp>

#include <cstdio>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

std::optional<std::string> said(const std::string& field) {
  return field == "-" ? std::nullopt : std::optional<std::string>(field);
}

specbeam::Pending submitted(const specbeam::Engine& engine, const std::string& line) {
  const std::vector<std::string> fields = split(line, '\t');
  specbeam::Ask ask;
  if (said(fields.at(0))) ask.k = std::stoll(fields[0]);
  ask.user = said(fields.at(1));
  ask.verification = said(fields.at(2));
  ask.exclude_history = fields.at(3) == "1";
  std::optional<std::vector<std::string>> allow;
  if (said(fields.at(4))) allow = split(fields[4], ' ');
  const auto deny = said(fields.at(5)) ? split(fields[5], ' ') : std::vector<std::string>();
  const specbeam::Filter filter = engine.filter(allow, deny);  // which its requests may outlive
  ask.filter = &filter;
  return engine.submit(split(fields.at(6), ' '), ask);
}

void print(const specbeam::Result& result) {
  std::printf("%lld\n", static_cast<long long>(result.unknown_items()));
  std::size_t rank = 0;
  for (const specbeam::Item& item : result) {
    const std::string title(item.title.value_or("-"));
    std::printf("%s\t%s\t%.17g\t%lld\t", std::string(item.id).c_str(), title.c_str(), item.score,
                static_cast<long long>(item.place));
    const char* between = "";
    for (const std::string_view token : result.identifier(rank++)) {
      std::printf("%s%s", between, std::string(token).c_str());
      between = " ";
    }
    std::printf("\n");
  }
  std::printf("\n");
}

}  // namespace

int main(int count, char** words) {
  if (count != 3) return 2;
  try {
    const specbeam::Engine engine(words[1], {std::nullopt, words[2]});
    std::vector<specbeam::Pending> pending;
    for (std::string line; std::getline(std::cin, line);) pending.push_back(submitted(engine, line));
    for (const specbeam::Pending& one : pending) print(one.wait());
    return 0;
  } catch (const specbeam::Error& error) {
    std::cerr << error.status() << ": " << error.what() << '\n';
    return 1;
  }
}
