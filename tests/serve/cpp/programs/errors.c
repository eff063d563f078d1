/*
 * Errors: errors BUNDLE SETTINGS BROKEN ITEM asks for what cannot be, and prints a line for each: a name, the status,
 * and what is said of it. BROKEN: a bundle whose engine gives no numbers for a history with ITEM.
 */
#include <math.h>
#include <specbeam.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char* const ITEMS[] = {"1", "2"};
static const char* const BAD_TEXT[] = {"1", "\xff\xfe"};
static const char* const HOLE[] = {"1", NULL};
static specbeam_engine* engine;
static specbeam_result* const SOME = (specbeam_result*)&engine; /* what no failing call may leave */

static void tell(const char* name, specbeam_status status) {
  printf("%s\t%d\t%s\n", name, (int)status, specbeam_last_error());
}

static specbeam_ask ask_of(int64_t k) {
  specbeam_ask ask;
  specbeam_ask_default(&ask);
  ask.k = k;
  return ask;
}

static void recommend(const char* name, specbeam_engine* by, const char* const* items, size_t count,
                      const specbeam_ask* ask) {
  specbeam_result* result = SOME;
  tell(name, specbeam_recommend(by, items, count, ask, &result));
  if (result != NULL) printf("%s left a result\n", name);
}

static void open_with(const char* name, const char* bundle, const char* settings) {
  specbeam_options options;
  specbeam_engine* made = (specbeam_engine*)SOME;
  specbeam_options_default(&options);
  options.settings = settings;
  tell(name, specbeam_open(bundle, &options, &made));
  if (made != NULL) printf("%s left an engine\n", name);
}

static void opening(const char* bundle) {
  specbeam_options options;
  specbeam_engine* made;
  tell("open-out-null", specbeam_open(bundle, NULL, NULL));
  tell("open-path-null", specbeam_open(NULL, NULL, &made));
  open_with("path-not-utf8", "\xff", NULL);
  open_with("path-missing", "no/such/bundle", NULL);
  open_with("settings-key", bundle, "{\"thread\": 1}");
  open_with("settings-value", bundle, "{\"threads\": 0}");
  open_with("settings-json", bundle, "{");
  open_with("settings-not-utf8", bundle, "\xff");
  open_with("settings-engine", bundle, "{\"engine\": \"abacus\"}");
  specbeam_options_default(&options);
  options.size = 0;
  tell("options-size", specbeam_open(bundle, &options, &made));
}

static void asking(void) {
  specbeam_pending* pending;
  specbeam_ask ask = ask_of(5);
  recommend("engine-null", NULL, ITEMS, 2, NULL);
  tell("out-null", specbeam_recommend(engine, ITEMS, 2, NULL, NULL));
  tell("submit-out-null", specbeam_submit(engine, ITEMS, 2, NULL, NULL));
  tell("submit-engine-null", specbeam_submit(NULL, ITEMS, 2, NULL, &pending));
  recommend("items-null", engine, NULL, 2, NULL);
  recommend("item-null", engine, HOLE, 2, NULL);
  recommend("item-not-utf8", engine, BAD_TEXT, 2, NULL);
  recommend("history-empty", engine, NULL, 0, NULL);
  recommend("history-unknown", engine, (const char* const[]){"no", "such"}, 2, NULL);
  for (int i = 0; i < 3; ++i) {
    const int64_t k[] = {0, -3, INT64_MAX};
    const char* name[] = {"k-zero", "k-negative", "k-huge"};
    const specbeam_ask wrong = ask_of(k[i]);
    recommend(name[i], engine, ITEMS, 2, &wrong);
  }
  ask.user = "\xc3\x28";
  recommend("user-not-utf8", engine, ITEMS, 2, &ask);
  ask = ask_of(5);
  ask.timeout_ms = -1;
  recommend("timeout-negative", engine, ITEMS, 2, &ask);
  ask.timeout_ms = NAN;
  recommend("timeout-nan", engine, ITEMS, 2, &ask);
  ask.timeout_ms = INFINITY;
  recommend("timeout-infinite", engine, ITEMS, 2, &ask);
  ask = ask_of(5);
  ask.verification = "{\"mode\": \"strictly\"}";
  recommend("verification-mode", engine, ITEMS, 2, &ask);
  ask.verification = "{\"threads\": 1}";
  recommend("verification-key", engine, ITEMS, 2, &ask);
  ask = ask_of(5);
  ask.size = 8;
  recommend("ask-size", engine, ITEMS, 2, &ask);
}

/* A struct of a newer header, whose last field says something. */
static void newer(void) {
  struct {
    specbeam_ask ask;
    int64_t more;
  } grown;
  specbeam_result* result;
  specbeam_ask_init(&grown.ask, sizeof grown);
  if (specbeam_recommend(engine, ITEMS, 2, &grown.ask, &result) != SPECBEAM_OK) tell("grown-default", SPECBEAM_INVALID);
  specbeam_result_free(result);
  grown.more = 1;
  recommend("grown-said", engine, ITEMS, 2, &grown.ask);
}

static void filtering(specbeam_engine* other) {
  specbeam_filter* filter;
  specbeam_ask ask = ask_of(5);
  tell("filter-out-null", specbeam_filter_create(engine, NULL, 0, NULL, 0, NULL));
  tell("filter-engine-null", specbeam_filter_create(NULL, NULL, 0, NULL, 0, &filter));
  tell("filter-hole", specbeam_filter_create(engine, HOLE, 2, NULL, 0, &filter));
  tell("filter-not-utf8", specbeam_filter_create(engine, NULL, 0, BAD_TEXT, 2, &filter));
  tell("filter-deny-null", specbeam_filter_create(engine, NULL, 0, NULL, 2, &filter));
  if (specbeam_filter_create(other, ITEMS, 2, NULL, 0, &filter) != SPECBEAM_OK) tell("filter", SPECBEAM_INVALID);
  ask.filter = filter;
  recommend("filter-of-another", engine, ITEMS, 2, &ask);
  specbeam_filter_free(filter);
}

static void tokens(void) {
  const int64_t prompt[] = {1, 2, 3}, lengths[] = {3}, long_lengths[] = {9}, wrong[] = {1, -7, 1 << 30};
  int64_t items[5];
  float scores[5];
  specbeam_ask ask = ask_of(5);
  tell("tokens-null", specbeam_recommend_tokens(engine, NULL, 1, 3, lengths, &ask, items, scores));
  tell("tokens-lengths-null", specbeam_recommend_tokens(engine, prompt, 1, 3, NULL, &ask, items, scores));
  tell("tokens-items-null", specbeam_recommend_tokens(engine, prompt, 1, 3, lengths, &ask, NULL, scores));
  tell("tokens-scores-null", specbeam_recommend_tokens(engine, prompt, 1, 3, lengths, &ask, items, NULL));
  tell("tokens-no-rows", specbeam_recommend_tokens(engine, prompt, 0, 3, lengths, &ask, items, scores));
  tell("tokens-overflow", specbeam_recommend_tokens(engine, prompt, SIZE_MAX, 3, lengths, &ask, items, scores));
  tell("tokens-length", specbeam_recommend_tokens(engine, prompt, 1, 3, long_lengths, &ask, items, scores));
  tell("tokens-id", specbeam_recommend_tokens(engine, wrong, 1, 3, lengths, &ask, items, scores));
  /* more than any machine's address space: refused before anything is read */
  tell("tokens-memory", specbeam_recommend_tokens(engine, prompt, 1, (size_t)1 << 59, lengths, &ask, items, scores));
  ask.user = "ada";
  tell("tokens-user", specbeam_recommend_tokens(engine, prompt, 1, 3, lengths, &ask, items, scores));
  ask = ask_of(0);
  tell("tokens-k", specbeam_recommend_tokens(engine, prompt, 1, 3, lengths, &ask, items, scores));
}

static void nothing(void* data) { (void)data; }

/* As many requests as a short queue cannot hold, then those of them that cannot be answered. */
static void on_their_way(const char* bundle) {
  enum { MANY = 400 };
  specbeam_pending* pending[MANY];
  specbeam_options options;
  specbeam_engine* narrow;
  specbeam_result* result = SOME;
  specbeam_status status = SPECBEAM_OK;
  size_t count = 0;
  specbeam_options_default(&options);
  options.settings = "{\"threads\": 1, \"queue\": 1, \"batch_size\": 1}";
  if (specbeam_open(bundle, &options, &narrow) != SPECBEAM_OK) tell("narrow", SPECBEAM_BUNDLE);
  while (count < MANY) {
    status = specbeam_submit(narrow, ITEMS, 2, NULL, &pending[count]);
    if (status != SPECBEAM_OK) break;
    ++count;
  }
  tell("overloaded", status);
  if (pending[count] != NULL) printf("overloaded left a request\n");
  tell("wait-out-null", specbeam_wait(pending[0], 0, NULL));
  tell("wait-nan", specbeam_wait(pending[0], NAN, &result));
  tell("wait-null", specbeam_wait(NULL, 0, &result));
  tell("notify-null", specbeam_notify(NULL, nothing, NULL));
  tell("notify-nothing", specbeam_notify(pending[0], NULL, NULL));
  if (specbeam_notify(pending[0], nothing, NULL) != SPECBEAM_OK) tell("notify", SPECBEAM_INVALID);
  tell("notify-twice", specbeam_notify(pending[0], nothing, NULL));
  for (size_t i = 0; i < count; ++i) specbeam_pending_free(pending[i]);
  do { /* until one is cancelled before it is answered */
    specbeam_result_free(result == SOME ? NULL : result);
    while (specbeam_submit(narrow, ITEMS, 2, NULL, &pending[0]) == SPECBEAM_OVERLOADED) {
    }
    specbeam_cancel(pending[0]);
    status = specbeam_wait(pending[0], -1, &result);
    specbeam_pending_free(pending[0]);
  } while (status == SPECBEAM_OK);
  tell("cancelled", status);
  if (result != NULL) printf("cancelled left a result\n");
  specbeam_close(narrow);
}

static void failing(const char* bundle, const char* item) {
  specbeam_engine* broken;
  specbeam_ask ask = ask_of(5);
  if (specbeam_open(bundle, NULL, &broken) != SPECBEAM_OK) tell("broken", SPECBEAM_BUNDLE);
  recommend("failed", broken, &item, 1, NULL);
  filtering(broken);
  specbeam_close(broken);
  ask.timeout_ms = 0.001;
  recommend("timeout", engine, ITEMS, 2, &ask);
}

/* NULL is nobody, nothing, or none. */
static void nulls(void) {
  specbeam_close(NULL);
  specbeam_filter_free(NULL);
  specbeam_pending_free(NULL);
  specbeam_cancel(NULL);
  specbeam_result_free(NULL);
  specbeam_ask_init(NULL, 8);
  specbeam_options_init(NULL, 8);
  printf("%d", specbeam_done(NULL) + (int)specbeam_result_size(NULL) + (int)specbeam_result_tokens(NULL, 0) +
                   (int)specbeam_catalog_size(NULL));
  printf(" %d", specbeam_result_item(NULL, 0) == NULL && specbeam_result_title(NULL, 0) == NULL &&
                    specbeam_result_token(NULL, 0, 0) == NULL && specbeam_catalog_item(NULL, 0) == NULL);
  printf(" %lld %d\n", (long long)specbeam_result_place(NULL, 0), isnan(specbeam_result_score(NULL, 0)) != 0);
}

/* Out of range: nothing, too. */
static void ranges(void) {
  specbeam_result* result;
  const specbeam_ask ask = ask_of(3);
  const size_t end = SIZE_MAX;
  if (specbeam_recommend(engine, ITEMS, 2, &ask, &result) != SPECBEAM_OK) tell("ranges", SPECBEAM_INVALID);
  printf("%d", (int)specbeam_result_size(result));
  for (size_t rank = 3; rank >= 3; rank = rank == 3 ? end : 0) {
    printf(" %d", specbeam_result_item(result, rank) == NULL && specbeam_result_title(result, rank) == NULL &&
                      specbeam_result_token(result, rank, 0) == NULL && isnan(specbeam_result_score(result, rank)) &&
                      specbeam_result_place(result, rank) == -1 && specbeam_result_tokens(result, rank) == 0);
  }
  printf(" %d", specbeam_result_token(result, 0, end) == NULL);
  printf(" %d\n", specbeam_catalog_item(engine, -1) == NULL &&
                      specbeam_catalog_item(engine, (int64_t)specbeam_catalog_size(engine)) == NULL &&
                      specbeam_catalog_item(engine, 0) != NULL && specbeam_catalog_item(engine, INT64_MAX) == NULL);
  specbeam_result_free(result);
}

int main(int count, char** words) {
  specbeam_options options;
  if (count != 5) return 2;
  printf("first\t0\t%s\n", specbeam_last_error());
  opening(words[1]);
  specbeam_options_default(&options);
  options.settings = words[2];
  if (specbeam_open(words[1], &options, &engine) != SPECBEAM_OK) tell("open", SPECBEAM_BUNDLE);
  asking();
  newer();
  tokens();
  on_their_way(words[1]);
  failing(words[3], words[4]);
  nulls();
  ranges();
  specbeam_close(engine);
  return 0;
}
