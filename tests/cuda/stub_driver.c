/* A libcuda.so.1 that launches nothing: it keeps what it is told, for tests of the launcher on machines without a GPU.
   Functions that the launcher does not use are absent, as in an old driver. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef int Result;
enum { SUCCESS = 0, INVALID_IMAGE = 200, NOT_FOUND = 500 };

/* ---- what the test reads and sets */
unsigned stub_shape[7];          /* grid x y z, block x y z, dynamic shared bytes of the last launch */
uint64_t stub_handles[2];        /* function and stream of the last launch */
unsigned char stub_arguments[512]; /* the last launch's arguments, one behind the other without gaps */
int stub_sizes[64];              /* set: bytes of each argument, 0 ends */
long stub_launches;
char stub_kernel[256];           /* name asked for in the library */
int stub_attribute[2];           /* last function attribute and its value */
int stub_fail_load, stub_fail_kernel, stub_fail_attribute, stub_fail_launch; /* set: the error to answer */

/* ---- the driver */
static Result version(int *value) { *value = 13000; return SUCCESS; }

static Result load(void **library, const void *code, void *a, void *b, unsigned c, void *d, void *e, unsigned f) {
  if (stub_fail_load) return stub_fail_load;
  if (memcmp(code, "\177ELF", 4)) return INVALID_IMAGE;
  *library = (void *)0x3000;
  return SUCCESS;
}

static Result kernel(void **found, void *library, const char *name) {
  if (stub_fail_kernel) return stub_fail_kernel;
  if (library != (void *)0x3000) return NOT_FOUND;
  strncpy(stub_kernel, name, sizeof stub_kernel - 1);
  *found = (void *)0x4000;
  return SUCCESS;
}

static Result function(void **found, void *of) {
  if (of != (void *)0x4000) return NOT_FOUND;
  *found = (void *)0x5000;
  return SUCCESS;
}

static Result attribute(void *of, int which, int value) {
  if (stub_fail_attribute) return stub_fail_attribute;
  stub_attribute[0] = which;
  stub_attribute[1] = value;
  return SUCCESS;
}

static Result launch(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                     void *stream, void **arguments, void **extra) {
  if (stub_fail_launch) return stub_fail_launch;
  unsigned shape[7] = {gx, gy, gz, bx, by, bz, shared};
  memcpy(stub_shape, shape, sizeof shape);
  stub_handles[0] = (uint64_t)f;
  stub_handles[1] = (uint64_t)stream;
  unsigned char *end = stub_arguments;
  for (int i = 0; stub_sizes[i]; i++) {
    memcpy(end, arguments[i], stub_sizes[i]);
    end += stub_sizes[i];
  }
  stub_launches++;
  return SUCCESS;
}

static Result words(int error, const char **text) {
  *text = error == 700 ? "an illegal memory access was encountered" : error == INVALID_IMAGE ? "device kernel image is invalid" : "stub";
  return SUCCESS;
}

static const struct { const char *name; void *address; } TABLE[] = {
    {"cuDriverGetVersion", (void *)version}, {"cuLibraryLoadData", (void *)load},   {"cuLibraryGetKernel", (void *)kernel},
    {"cuKernelGetFunction", (void *)function}, {"cuFuncSetAttribute", (void *)attribute}, {"cuLaunchKernel", (void *)launch},
    {"cuGetErrorString", (void *)words}, {NULL, NULL}};

Result cuGetProcAddress_v2(const char *name, void **found, int a, uint64_t flags, int *status) {
  *found = NULL;
  if (!strcmp(name, "cuGetProcAddress")) *found = (void *)cuGetProcAddress_v2;
  for (int i = 0; TABLE[i].name; i++)
    if (!strcmp(name, TABLE[i].name)) *found = TABLE[i].address;
  if (status) *status = *found ? 0 : 1;
  return *found ? SUCCESS : NOT_FOUND;
}

Result cuGetProcAddress(const char *name, void **found, int a, uint64_t flags) { return cuGetProcAddress_v2(name, found, a, flags, NULL); }
Result cuInit(unsigned flags) { return SUCCESS; }
Result cuDriverGetVersion(int *value) { return version(value); }
