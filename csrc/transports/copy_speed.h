/* How fast the kernel's copy is to unlucky addresses. */
#ifndef UVLOOP_CLONE_COPY_SPEED_H
#define UVLOOP_CLONE_COPY_SPEED_H

#include <stdbool.h>

#define PAGE_SIZE_USUAL 4096

/* Copying to an address whose offset in its page is just ahead of the source's takes more than
 * twice as long as to another. Measured when first asked (some 20 us); false where it cannot be.
 */
bool copy_is_slow_just_ahead(void);

#endif
