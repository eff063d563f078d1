/* What the library says of itself, before any interpreter is started. */
#include <specbeam.h>
#include <stdio.h>

int main(void) {
  printf("%s %d%s\n", specbeam_version(), specbeam_abi(), specbeam_last_error());
  return 0;
}
