// Opening and closing: reopen BUNDLE SETTINGS TIMES asks for a list each time. Prints a line for each time once it is
// closed: the memory in use (KiB), threads and file handles of the process.
#include <specbeam.hpp>

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

namespace {

long resident() {
  long size = 0, pages = 0;
  std::ifstream("/proc/self/statm") >> size >> pages;
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

long entries(const char* folder) {
  const std::filesystem::directory_iterator files(folder);
  return std::distance(begin(files), end(files));
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) return 2;
  try {
    for (int time = 0; time < std::atoi(words[3]); ++time) {
      {
        const specbeam::Engine engine(words[1], {std::nullopt, words[2]});
        const specbeam::Filter filter = engine.filter({{"1", "2", "3"}});
        specbeam::Ask ask;
        ask.filter = &filter;
        if (engine.recommend({"1", "2"}, ask).size() != 3) return 3;
        engine.submit({"5"}).notify([] {});  // and nobody waits for it
      }
      std::cout << resident() << ' ' << entries("/proc/self/task") << ' ' << entries("/proc/self/fd") << '\n';
    }
    return 0;
  } catch (const specbeam::Error& error) {
    std::cerr << error.status() << ": " << error.what() << '\n';
    return 1;
  }
}
