/* relay, as an executable: Python inside, the modules in _internal beside it.
 *
 * PyInstaller collects the files; its own bootloader is not used, since it starts itself a second time to set
 * LD_LIBRARY_PATH, and cannot be given another dynamic loader, as the single file needs (see launcher.c).
 * This one finds its libraries by its RPATH, $ORIGIN/_internal.
 */
#include <Python.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

static char place[PATH_MAX];

/* The real path of this executable: also where there is no /proc, and for who comes by a symbolic link. */
static int find_myself(void)
{
    const char *named = (const char *)getauxval(AT_EXECFN);
    return realpath("/proc/self/exe", place) != NULL || (named != NULL && realpath(named, place) != NULL);
}

static PyStatus set(PyConfig *config, wchar_t **key, const char *folder, const char *name)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s%s", folder, name);
    return PyConfig_SetBytesString(config, key, path);
}

static PyStatus search(PyConfig *config, const char *folder, const char *name)
{
    wchar_t *path = NULL;
    PyStatus status = set(config, &path, folder, name);
    if (!PyStatus_Exception(status))
        status = PyWideStringList_Append(&config->module_search_paths, path);
    PyMem_RawFree(path);
    return status;
}

#define MUST(call)                             \
    do {                                       \
        PyStatus status = (call);              \
        if (PyStatus_Exception(status))        \
            Py_ExitStatusException(status);    \
    } while (0)

int main(int argc, char **argv)
{
    if (!find_myself()) {
        fputs("relay: cannot find out where it is itself: is /proc mounted?\n", stderr);
        return 1;
    }

    /* Nothing of the environment changes what Python does; text is UTF-8 whatever the locale. */
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    MUST(Py_PreInitialize(&before));

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.install_signal_handlers = 1; /* Ctrl-C is KeyboardInterrupt, SIGPIPE an error */
    config.site_import = 0;
    config.write_bytecode = 0;
    config.parse_argv = 0;
    MUST(PyConfig_SetBytesArgv(&config, argc, argv));
    MUST(set(&config, &config.program_name, place, ""));
    MUST(set(&config, &config.executable, place, ""));
    MUST(set(&config, &config.base_executable, place, ""));

    char *name = strrchr(place, '/');
    snprintf(name, sizeof place - (size_t)(name - place), "%s", "/_internal");
    MUST(set(&config, &config.home, place, ""));
    MUST(set(&config, &config.prefix, place, ""));
    MUST(set(&config, &config.base_prefix, place, ""));
    MUST(set(&config, &config.exec_prefix, place, ""));
    MUST(set(&config, &config.base_exec_prefix, place, ""));
    MUST(search(&config, place, "/" DYNLOAD));
    MUST(search(&config, place, ""));
    config.module_search_paths_set = 1;
    MUST(set(&config, &config.run_filename, place, "/start.py"));

    MUST(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    return Py_RunMain();
}
