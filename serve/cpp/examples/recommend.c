/* One list, from C: recommend BUNDLE ITEM... prints rank, item, score and title. */
#include <specbeam.h>
#include <stdio.h>

static int failed(const char* what) {
  fprintf(stderr, "%s: %s\n", what, specbeam_last_error());
  return 1;
}

static void print(const specbeam_result* result) {
  for (size_t rank = 0; rank < specbeam_result_size(result); ++rank) {
    const char* title = specbeam_result_title(result, rank);
    printf("%zu\t%s\t%.4f\t%s\n", rank + 1, specbeam_result_item(result, rank), specbeam_result_score(result, rank),
           title == NULL ? "" : title);
  }
}

int main(int count, char** words) {
  if (count < 3) {
    fprintf(stderr, "recommend BUNDLE ITEM...\n");
    return 2;
  }
  specbeam_engine* engine;
  if (specbeam_open(words[1], NULL, &engine) != SPECBEAM_OK) return failed("cannot open the bundle");

  specbeam_ask ask;
  specbeam_ask_default(&ask);
  ask.k = 10;
  ask.exclude_history = 1;
  ask.timeout_ms = 10000;

  specbeam_result* result;
  const char* const* items = (const char* const*)(words + 2); /* oldest first */
  int status = 0;
  if (specbeam_recommend(engine, items, (size_t)(count - 2), &ask, &result) != SPECBEAM_OK) {
    status = failed("no list");
  } else {
    print(result);
  }
  specbeam_result_free(result); /* NULL where there is none */
  specbeam_close(engine);
  return status;
}
