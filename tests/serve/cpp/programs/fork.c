/* Forks: fork BUNDLE. Before anything is opened, a child is like any process; afterwards it is told what it may not. */
#define _GNU_SOURCE
#include <specbeam.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const char* const ITEMS[] = {"1", "2"};

static int listed(specbeam_engine* engine) {
  specbeam_result* result;
  int size = specbeam_recommend(engine, ITEMS, 2, NULL, &result) == SPECBEAM_OK ? (int)specbeam_result_size(result) : -1;
  specbeam_result_free(result);
  return size;
}

static void tell(const char* name, specbeam_status status) {
  printf("%s\t%d\t%s\n", name, (int)status, specbeam_last_error());
}

/* Waits for the child, whose output is printed whole before this process prints more. */
static int ended(pid_t child) {
  int status;
  waitpid(child, &status, 0);
  return status;
}

static void child_that_inherits(const char* bundle, specbeam_engine* engine, specbeam_pending* pending,
                                specbeam_filter* filter, specbeam_result* result) {
  specbeam_engine* other;
  specbeam_result* none;
  specbeam_pending* asked;
  specbeam_filter* made;
  int64_t places[20], lengths[] = {1}, tokens[] = {1};
  float scores[20];
  tell("open", specbeam_open(bundle, NULL, &other));
  tell("recommend", specbeam_recommend(engine, ITEMS, 2, NULL, &none));
  tell("tokens", specbeam_recommend_tokens(engine, tokens, 1, 1, lengths, NULL, places, scores));
  tell("submit", specbeam_submit(engine, ITEMS, 2, NULL, &asked));
  tell("filter", specbeam_filter_create(engine, NULL, 0, ITEMS, 2, &made));
  tell("wait", specbeam_wait(pending, -1, &none));
  printf("size\t%d\t\n", (int)specbeam_result_size(result));
  specbeam_cancel(pending);
  specbeam_pending_free(pending);
  specbeam_filter_free(filter);
  specbeam_result_free(result);
  specbeam_close(engine);
  fflush(stdout);
  _exit(7); /* what engines' libraries do at an exit waits for threads that are not here */
}

int main(int count, char** words) {
  specbeam_engine* engine;
  specbeam_pending* pending;
  specbeam_filter* filter;
  specbeam_result* result;
  if (count != 2) return 2;
  pid_t child = fork();
  if (specbeam_open(words[1], NULL, &engine) != SPECBEAM_OK) return 3;
  if (child == 0) {
    int size = listed(engine);
    specbeam_close(engine);
    exit(size);
  }
  printf("first child\t%d\t\n", WEXITSTATUS(ended(child)));
  if (specbeam_submit(engine, ITEMS, 2, NULL, &pending) != SPECBEAM_OK) return 4;
  if (specbeam_filter_create(engine, ITEMS, 2, NULL, 0, &filter) != SPECBEAM_OK) return 5;
  if (specbeam_recommend(engine, ITEMS, 2, NULL, &result) != SPECBEAM_OK) return 6;
  fflush(stdout);
  child = fork();
  if (child == 0) child_that_inherits(words[1], engine, pending, filter, result);
  printf("second child\t%d\t\n", WEXITSTATUS(ended(child)));
  printf("parent\t%d\t\n", listed(engine));
  specbeam_pending_free(pending);
  specbeam_filter_free(filter);
  specbeam_result_free(result);
  specbeam_close(engine);
  return 0;
}
