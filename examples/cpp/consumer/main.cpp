// The shortest program that uses the installed library: consumer MODEL INPUT OUTPUT

#include <exception>
#include <iostream>

#include "pellucid/files.h"
#include "pellucid/restorer.h"

int main(int argc, char** argv) {
    if (argc != 4) return 2;
    try {
        const pellucid::Restorer restorer(argv[1]);
        pellucid::write_picture(restorer.restore(pellucid::read_picture(argv[2])), argv[3]);
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
