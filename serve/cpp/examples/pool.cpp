// Lists by a pool of threads: pool BUNDLE HISTORIES [THREADS [K]]
//
// HISTORIES: a line a user, "user item item ...", oldest first, as AtSpeed's files have them. A line a user on standard
// output, in the same order: "user item item ...". A line without a list is told on standard error, and the rest goes
// on. Threads that ask at once share the engine's calls: as many as its batch holds keep it busy.
#include <specbeam.hpp>

#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <functional>
#include <future>
#include <iostream>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

class Pool {
 public:
  explicit Pool(std::size_t threads) {
    for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  std::future<std::string> run(std::function<std::string()> task) {
    std::packaged_task<std::string()> packaged(std::move(task));
    std::future<std::string> future = packaged.get_future();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      waiting_.push_back(std::move(packaged));
    }
    changed_.notify_one();
    return future;
  }

 private:
  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      std::packaged_task<std::string()> task = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::packaged_task<std::string()>> waiting_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

// The answer to a line.
std::string served(const specbeam::Engine& engine, const std::string& line, std::int64_t k) {
  std::istringstream words(line);
  std::string user;
  std::vector<std::string> items;
  words >> user;
  for (std::string item; words >> item;) items.push_back(item);
  specbeam::Ask ask;
  ask.user = user;
  ask.k = k;
  std::string answer = user;
  for (const specbeam::Item& item : engine.recommend(items, ask)) answer.append(" ").append(item.id);
  return answer;
}

// Whether there is a list for a line; tells what there is.
bool told(std::future<std::string>& answer, std::size_t number) {
  try {
    std::cout << answer.get() << '\n';
    return true;
  } catch (const specbeam::Error& error) {
    std::cerr << "line " << number << ": " << error.what() << '\n';
    return false;
  }
}

int run(const std::string& bundle, const std::string& path, std::size_t threads, std::int64_t k) {
  std::ifstream file(path);
  if (!file) {
    std::cerr << path << " cannot be read.\n";
    return 1;
  }
  const specbeam::Engine engine(bundle);
  Pool pool(threads);  // ends before the engine does
  std::deque<std::future<std::string>> answers;
  std::size_t number = 0, failed = 0;
  const auto tell_first = [&] {
    failed += told(answers.front(), ++number) ? 0 : 1;
    answers.pop_front();
  };
  for (std::string line; std::getline(file, line);) {
    answers.push_back(pool.run([&engine, line, k] { return served(engine, line, k); }));
    if (answers.size() >= 4 * threads) tell_first();  // what is read ahead is bounded
  }
  while (!answers.empty()) tell_first();
  return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** words) {
  const std::int64_t threads = count > 3 ? std::atoll(words[3]) : 8, k = count > 4 ? std::atoll(words[4]) : 20;
  if (count < 3 || count > 5 || threads < 1 || k < 1) {
    std::cerr << "pool BUNDLE HISTORIES [THREADS [K]]\n";
    return 2;
  }
  try {
    return run(words[1], words[2], static_cast<std::size_t>(threads), k);
  } catch (const specbeam::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
