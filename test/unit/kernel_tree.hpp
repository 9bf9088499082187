// A directory with a test's own files, in place of /proc.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

class Tree
{
  public:
	Tree()
	{
		std::string name = std::filesystem::temp_directory_path() / "kernel_tree.XXXXXX";
		if (!mkdtemp(name.data()))
			throw std::system_error(errno, std::generic_category(), "mkdtemp");
		root_ = name;
	}
	~Tree() { std::filesystem::remove_all(root_); }
	Tree(const Tree &) = delete;
	Tree &operator=(const Tree &) = delete;

	const std::string &root() const { return root_; }

	void write(const std::string &path, const std::string &content) const
	{
		std::filesystem::create_directories(
			(root_ + "/" + path).substr(0, root_.size() + 1 + path.rfind('/')));
		std::ofstream(root_ + "/" + path) << content;
	}

	void link(const std::string &path, const std::string &target) const
	{
		write(path, "");
		std::filesystem::remove(root_ + "/" + path);
		std::filesystem::create_symlink(target, root_ + "/" + path);
	}

  private:
	std::string root_;
};
